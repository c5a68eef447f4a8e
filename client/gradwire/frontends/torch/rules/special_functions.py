"""Rules for special functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.graphs.builder import SCI

_UNARY = {
    "special_ndtri": "Ndtri", "special_log_ndtr": "LogNdtr", "special_i0e": "BesselI0e",
    "special_i1e": "BesselI1e",
}  # fmt: skip


@rule(*_UNARY)
def unary(call: Call, x: Array) -> Any:
    return call.emit(_UNARY[call.op], call.value(x, call.dtype), domain=SCI)


@rule("i0", "special_i0", "special_i1")
def bessel(call: Call, x: Array) -> Any:
    scaled = call.emit(
        "BesselI1e" if call.op.endswith("1") else "BesselI0e", call.value(x, call.dtype), domain=SCI
    )
    return scaled * np.exp(np.abs(x))


@rule("igamma", "igammac")
def incomplete_gamma(call: Call, a: Array, x: Array) -> Any:
    operands = [call.value(a, call.dtype), call.value(x, call.dtype)]
    return call.emit("Igamma" if call.op == "igamma" else "Igammac", *operands, domain=SCI)
