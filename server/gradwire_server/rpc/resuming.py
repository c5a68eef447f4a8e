"""Names the plan and the point of a derivative, so that a stream is resumed by the rest of the same one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_server.errors import PlanChanged
from gradwire_wire.v1 import derivative_pb2, tensor_pb2

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_SEPARATOR = "."
_LARGE = 1 << 18
"""Bytes from which hashing leaves the event loop."""


async def resume_id(plan_id: str, inputs: Mapping[str, tensor_pb2.Tensor]) -> str:
    """Return the name of a plan and a point.

    An array that is held by id is named by it, so that what is hashed comes with the request and is small.

    Args:
        plan_id: of the plan.
        inputs: the point, as it was sent; its tensors were read and fit.
    """
    inline = sum(len(tensor.data) for tensor in inputs.values())
    point = _point(inputs) if inline <= _LARGE else await asyncio.to_thread(_point, inputs)
    return f"{plan_id}{_SEPARATOR}{point}"


def _point(inputs: Mapping[str, tensor_pb2.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(f"{len(name)}:{name}={_tensor_id(inputs[name])} ".encode())
    return digest.hexdigest()[:32]


def _tensor_id(tensor: tensor_pb2.Tensor) -> str:
    """Return the id of an array, which is the same whether it was sent inline or uploaded before."""
    if tensor.HasField("tensor_id"):
        return tensor.tensor_id
    digest = wire.tensor_digest(tensor.dtype, tensor.shape)
    digest.update(tensor.data)
    return digest.hexdigest()


def wanted_blocks(
    request: derivative_pb2.DifferentiateRequest, plan_id: str, expected: str, blocks: int
) -> Mask:
    """Return for each block whether the client asks for it and does not hold it.

    Args:
        request: the message.
        plan_id: of the plan made for it.
        expected: the name of that plan and the request's point (see `resume_id`).
        blocks: of the plan.

    Raises:
        InvalidInput: it does not say of which plan or stream they are, or they are of another point.
        PlanChanged: they are of another plan.
    """
    if request.skip and not request.resume_id:
        raise InvalidInput(
            "skip names blocks without saying of which stream: set resume_id to that of the stream's header",
            "resume_id",
        )
    if request.blocks and not request.plan_id:
        raise InvalidInput("blocks names blocks without saying of which plan: set plan_id", "plan_id")
    resumed, _, _ = request.resume_id.partition(_SEPARATOR)
    for held in (request.plan_id, resumed):
        if held and held != plan_id:
            raise PlanChanged(
                f"the blocks held are of plan {held[:64]}, but this server plans {plan_id}; "
                "start the derivative anew"
            )
    if request.resume_id and request.resume_id != expected:
        raise InvalidInput(
            "the blocks held are of another point: send the inputs that the stream was begun with, or start "
            "the derivative anew",
            "resume_id",
        )
    wanted = np.full(blocks, not request.blocks)
    wanted[_numbers(request.blocks, "blocks", blocks)] = True
    wanted[_numbers(request.skip, "skip", blocks)] = False
    return wanted


def _numbers(named: Sequence[int], field: str, blocks: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    numbers = np.fromiter(named, np.intp, len(named))
    highest = int(numbers.max(initial=-1))
    if highest >= blocks:
        raise InvalidInput(f"{field} names block {highest}; the plan has {blocks} blocks", field)
    return numbers
