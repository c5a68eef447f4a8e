"""Derivative checks for one operator: build a one-node model, then check its derivatives.

    model = one_node("Gemm", a, b, c, transB=1)
    check_derivatives(model, a, b, c, order=2)

What is checked, in float64, at the given point:

- JVP against a Richardson-extrapolated central difference (relative 1e-6);
- the adjoint identity <J v, w> = <v, J' w> (relative 1e-12);
- the forward Jacobian against the reverse one, each under `jit` and `vmap` (relative 1e-12);
- with `order=2`, all of it again for the gradient of <w, f>, and the symmetry of its Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from gradwire_engine.lowering import evaluate
from tests.quick_compiling import FULL

jax.config.update("jax_enable_x64", True)

Array = Any
FlatFunction = Callable[[Array], Array]

OPSET = 24
"""The opset of a model by default."""


def one_node(
    op: str,
    *inputs: Array,
    outputs: int = 1,
    opset: int = OPSET,
    domain: str = "",
    domain_opset: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """Returns a model of a single node with inputs x0, x1, ... (`None` omits one) and outputs y0, y1, ..."""
    names = ["" if value is None else f"x{index}" for index, value in enumerate(inputs)]
    results = [f"y{index}" for index in range(outputs)]
    node = onnx.helper.make_node(op, names, results, name=op, domain=domain, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        op,
        [onnx.ValueInfoProto(name=name) for name in names if name],
        [onnx.ValueInfoProto(name=name) for name in results],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    if domain:
        opsets.append(onnx.helper.make_opsetid(domain, domain_opset))
    return onnx.helper.make_model(graph, opset_imports=opsets)


def run(op: str, *inputs: Array, outputs: int = 1, **options: Any) -> Any:
    """Returns a one-node model's outputs as NumPy arrays (a single one unpacked).

    Float inputs are traced under jit.
    """
    model = one_node(op, *inputs, outputs=outputs, **options)
    results = [np.asarray(value) for value in function_of(model, inputs)(*_floats(inputs))]
    return results[0] if outputs == 1 else results


def is_float(value: Array) -> bool:
    return value is not None and jnp.issubdtype(np.asarray(value).dtype, jnp.floating)


def _floats(inputs: Sequence[Array]) -> list[Array]:
    return [value for value in inputs if is_float(value)]


def function_of(
    model: onnx.ModelProto, inputs: Sequence[Array], wrt: Sequence[int] | None = None
) -> Callable[..., tuple[Array, ...]]:
    """Returns the model as a jitted function of the inputs in `wrt` (all floating ones by default).

    The other inputs are constants: static values, as initializers are.
    """
    chosen = [index for index, value in enumerate(inputs) if is_float(value)] if wrt is None else list(wrt)
    constants = {
        f"x{index}": np.asarray(value)
        for index, value in enumerate(inputs)
        if value is not None and index not in chosen
    }
    names = [f"x{index}" for index in chosen]

    def function(*values: Array) -> tuple[Array, ...]:
        return tuple(evaluate(model, {**constants, **dict(zip(names, values, strict=True))}))

    return jax.jit(function)


def flatten(
    model: onnx.ModelProto, inputs: Sequence[Array], wrt: Sequence[int] | None = None
) -> tuple[FlatFunction, np.ndarray[Any, Any]]:
    """Returns the model as a function from one vector to one vector, and the point as a vector.

    The vector holds the inputs in `wrt` one after the other; the result, the floating outputs.
    """
    chosen = [index for index, value in enumerate(inputs) if is_float(value)] if wrt is None else list(wrt)
    points = [np.asarray(inputs[index]) for index in chosen]
    ends = np.cumsum([0] + [point.size for point in points])
    inner = function_of(model, inputs, chosen)

    def flat(vector: Array) -> Array:
        parts = [
            vector[ends[i] : ends[i + 1]].reshape(point.shape).astype(point.dtype)
            for i, point in enumerate(points)
        ]
        outputs = [jnp.ravel(value) for value in inner(*parts) if jnp.issubdtype(value.dtype, jnp.floating)]
        return jnp.concatenate(outputs)

    return flat, np.concatenate([np.ravel(point) for point in points])


def difference(flat: FlatFunction, x: Array, v: Array, step: float) -> np.ndarray[Any, Any]:
    """Computes a directional derivative by two Richardson extrapolations of the central difference.

    The error is O(step^6). The points are evaluated together, under `vmap`.
    """

    widths = np.array([step, step / 2, step / 4])
    points = np.asarray(x) + np.concatenate([widths, -widths])[:, None] * np.asarray(v)
    above, below = np.split(np.asarray(jax.jit(jax.vmap(flat))(points)), 2)
    coarse, middle, fine = (above - below) / (2 * widths[:, None])
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return (16 * second - first) / 15


def _close(
    actual: Array, expected: Array, rtol: float, what: str, floor: float = 0.0, noise: float = 0.0
) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.max(np.abs(expected), initial=floor), np.max(np.abs(actual), initial=floor))
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=rtol * scale + noise + np.finfo(np.float64).tiny, err_msg=what
    )


def check_flat(
    flat: FlatFunction,
    x: np.ndarray[Any, Any],
    *,
    order: int = 1,
    modes: Sequence[str] = ("forward", "reverse"),
    step: float = 2e-3,
    rtol: float = 1e-6,
    identity_rtol: float = 1e-12,
    floor: float = 0.0,
    seed: int = 0,
    products: bool = True,
) -> np.ndarray[Any, Any]:
    """Checks a vector function's derivatives at `x` and returns the Jacobian, (outputs, inputs).

    Args:
        order: 1, or 2 to check the gradient of a random combination of outputs in the same way.
        modes: ("forward",) where reverse mode does not exist.
        step: widest step of the difference; no kink may lie within it.
        rtol: tolerance of the difference, relative to the largest derivative.
        identity_rtol: tolerance of identities that are exact except for rounding.
        floor: smaller derivatives are compared as if of this size, as some are 0 except for rounding.
        products: whether a single JVP and VJP are compared with the Jacobians, which are many at once.
    """
    rng = np.random.default_rng(seed)
    v = rng.uniform(-1, 1, x.shape)
    w = rng.uniform(-1, 1, jax.eval_shape(flat, x).shape)
    reverse_too = "reverse" in modes

    # One compilation for all, as compiling takes most of the time of a check.
    @jax.jit
    def derivatives(x: Array, v: Array, w: Array) -> tuple[Array, ...]:
        forward = jax.jacfwd(flat)(x)
        value, jv = jax.jvp(flat, (x,), (v,)) if products else (flat(x), forward @ v)
        if not reverse_too:
            return value, jv, forward
        reverse = jax.jacrev(flat)(x)
        wj = jax.vjp(flat, x)[1](w)[0] if products else w @ reverse
        return value, jv, forward, wj, reverse

    value, jv, forward, *pulled = (np.asarray(item) for item in derivatives(x, v, w))
    assert np.all(np.isfinite(jv)), f"the JVP is not finite: {jv}"
    # The rounding error of a difference of equal numbers, divided by the narrowest step.
    noise = 1e-18 + 4 * np.finfo(np.float64).eps * np.max(np.abs(value), initial=0.0) / step
    _close(jv, difference(flat, x, v, step), rtol, "JVP against a finite difference", floor, float(noise))
    _close(forward @ v, jv, identity_rtol, "forward Jacobian (vmap) against a single JVP", floor)
    if not reverse_too:
        return forward
    wj, reverse = pulled
    _check_adjoint(v, jv, w, wj, identity_rtol, floor)
    _close(reverse, forward, identity_rtol, "reverse Jacobian against forward", floor)
    if order > 1:

        def gradient(point: Array) -> Array:
            return jax.vjp(flat, point)[1](jnp.asarray(w))[0]

        hessian = check_flat(
            gradient,
            x,
            step=step,
            rtol=rtol,
            identity_rtol=10 * identity_rtol,
            floor=floor,
            seed=seed + 1,
            products=FULL,
        )
        _close(hessian, hessian.T, 10 * identity_rtol, "symmetry of the Hessian", floor)
    return forward


def check_directions(
    flat: FlatFunction,
    x: np.ndarray[Any, Any],
    *,
    modes: Sequence[str] = ("forward", "reverse"),
    step: float = 2e-3,
    rtol: float = 1e-6,
    identity_rtol: float = 1e-12,
    floor: float = 0.0,
    seed: int = 0,
) -> None:
    """Checks what `check_flat` checks except the Jacobians, for functions too large to form them."""
    rng = np.random.default_rng(seed)
    v = rng.uniform(-1, 1, x.shape)
    jv = np.asarray(jax.jit(lambda x, v: jax.jvp(flat, (x,), (v,))[1])(x, v))
    assert np.all(np.isfinite(jv)), f"the JVP is not finite: {jv}"
    _close(jv, difference(flat, x, v, step), rtol, "JVP against a finite difference", floor)
    if "reverse" in modes:
        w = rng.uniform(-1, 1, jv.shape)
        wj = np.asarray(jax.jit(lambda x, w: jax.vjp(flat, x)[1](w)[0])(x, w))
        _check_adjoint(v, jv, w, wj, identity_rtol, floor)


def _check_adjoint(v: Array, jv: Array, w: Array, wj: Array, rtol: float, floor: float) -> None:
    left, right = float(np.dot(jv, w)), float(np.dot(v, wj))
    size = float(np.dot(np.abs(jv), np.abs(w)) + np.dot(np.abs(v), np.abs(wj)))
    size = max(size, floor * (v.size + w.size))
    assert abs(left - right) <= rtol * size, f"adjoint identity: {left} and {right}"


def check_derivatives(
    model: onnx.ModelProto, *inputs: Array, wrt: Sequence[int] | None = None, **options: Any
) -> np.ndarray[Any, Any]:
    """Checks a one-node model's derivatives at the point `inputs`; see `check_flat` for options.

    Args:
        model: from `one_node`.
        inputs: the point; floating inputs in float64. `None` where the node omits an input.
        wrt: indices of the inputs to differentiate (default: every floating one); the rest are static.

    Returns:
        The Jacobian, (outputs, inputs), both flattened and concatenated.
    """
    flat, x = flatten(model, inputs, wrt)
    return check_flat(flat, x, **options)


def check_op(
    op: str,
    *inputs: Array,
    wrt: Sequence[int] | None = None,
    check: dict[str, Any] | None = None,
    **node: Any,
) -> np.ndarray[Any, Any]:
    """Calls `check_derivatives(one_node(op, *inputs, **node), *inputs, wrt=wrt, **check)`."""
    return check_derivatives(one_node(op, *inputs, **node), *inputs, wrt=wrt, **(check or {}))


def gradient_of(
    op: str, *inputs: Array, wrt: Sequence[int] | None = None, **node: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the Jacobian by forward and by reverse mode, unchecked: for conventions at kinks."""
    flat, x = flatten(one_node(op, *inputs, **node), inputs, wrt)
    # Under one jit: operator by operator, each of some hundred primitives would be compiled by itself.
    forward, reverse = jax.jit(lambda x: (jax.jacfwd(flat)(x), jax.jacrev(flat)(x)))(x)
    return np.asarray(forward), np.asarray(reverse)
