"""Cast and CastLike, with the rules of float8 and float4 for numbers out of their range."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx
from jax import lax

from gradwire_engine.lowering.numeric import cast as convert
from gradwire_engine.lowering.numeric import constant, is_floating
from gradwire_engine.lowering.registry import Node, Value, namespace, rule

_FLOAT8_WITHOUT_SATURATION_BY_CAST = (
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
)

_SCALE = np.dtype(ml_dtypes.float8_e8m0fnu)


def element_type(node: Node, code: int | str | None) -> np.dtype[Any]:
    """Return the NumPy dtype of an ONNX element type, given by number or (before opset 6) by name.

    Raises:
        InvalidGraph: there is no such type, or none is given.
    """
    if code is None:
        raise node.fail("attribute to is missing")
    try:
        if isinstance(code, str):
            code = onnx.TensorProto.DataType.Value(code)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError):
        raise node.fail(f"{code} is not an ONNX element type") from None


def _power_of_two(x: Value, round_mode: str, saturate: bool) -> Value:
    """Convert to float8e8m0: the exponent alone, 2^-127 to 2^127, rounded as `round_mode` says."""
    xp = namespace(x)
    x = convert(x, np.float32)
    mantissa, exponent = xp.frexp(xp.abs(x))
    # frexp gives a mantissa in [1/2, 1): the power of two at or below the number is exponent - 1.
    threshold = {"up": 0.5, "down": 1.0, "nearest": 0.75}[round_mode]
    above = mantissa > threshold if round_mode == "up" else mantissa >= threshold
    code = exponent + 126 + above
    low, high = code < 0, (code > 254) | xp.isinf(x)
    clipped = xp.where(high, 254, xp.where(low | (x == 0), 0, code))
    bad = xp.isnan(x) if saturate else xp.isnan(x) | low | high | (x == 0)
    bits = xp.where(bad, 255, clipped).astype(np.uint8)
    return bits.view(_SCALE) if xp is np else lax.bitcast_convert_type(bits, _SCALE)


def cast_to(node: Node, x: Value, target: np.dtype[Any]) -> Value:
    """Convert `x` to `target` by the rules of Cast, with the node's `saturate` and `round_mode`."""
    if target.kind == "O" or x.dtype.kind == "O":
        return _cast_text(node, x, target)
    if x.dtype == target:
        return x
    saturate = bool(node.attr("saturate", 1))
    if target == np.bool_:
        return namespace(x).not_equal(x, constant(0, x))
    if target == _SCALE and is_floating(x):
        return _power_of_two(x, node.attr("round_mode", "up"), saturate)
    if target in _FLOAT8_WITHOUT_SATURATION_BY_CAST and saturate:
        if not is_floating(x):
            x = convert(x, np.float32)
        limit = float(jnp.finfo(target).max)  # type: ignore[no-untyped-call]
        # Compared in float32 at least: the limit itself is not a number of every half type.
        wide = x if np.dtype(x.dtype).itemsize > 2 else convert(x, np.float32)
        x = namespace(wide).clip(wide, constant(-limit, wide), constant(limit, wide))
    with np.errstate(all="ignore"):
        if is_small(target) and is_floating(x):
            # A float out of a 4-bit integer's range keeps its low bits, as any other integer does.
            x = convert(x, np.int32)
        if isinstance(x, np.ndarray | np.generic):
            return np.asarray(x).astype(target)
    return lax.convert_element_type(x, target)


def is_small(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is an integer of 4 bits or fewer."""
    return dtype.kind == "V" and bool(jnp.issubdtype(dtype, jnp.integer))


def _cast_text(node: Node, x: Value, target: np.dtype[Any]) -> Value:
    """Convert to or from strings, which must be static."""
    text = node.static(x, "a string, or a number cast to one,")
    if x.dtype == target:
        return x
    if target.kind == "O":
        return np.array([str(item) for item in text.ravel()], object).reshape(text.shape)
    words = [item.decode() if isinstance(item, bytes) else str(item) for item in text.ravel()]
    if jnp.issubdtype(target, jnp.integer):
        return np.array([int(float(word)) for word in words]).astype(target).reshape(text.shape)
    return np.array([float(word) for word in words]).astype(target).reshape(text.shape)


@rule("Cast", since=1)
def cast(node: Node, x: Value) -> Value:
    """Cast: another dtype; the derivative passes between floating dtypes and is zero through any other."""
    return cast_to(node, x, element_type(node, node.attr("to")))


@rule("CastLike", since=15)
def cast_like(node: Node, x: Value, target: Value) -> Value:
    """CastLike: Cast to the dtype of `target`."""
    return cast_to(node, x, np.dtype(target.dtype))
