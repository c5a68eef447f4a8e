"""Computes blocks of Jacobian columns or rows and of Hessian rows, as JAX functions.

A block is a range of seeds of one array: unit tangents of an input in forward mode, unit cotangents of an
output in reverse mode, unit tangents of an input for a Hessian. The function is linearized once a block, then
applied to the block's seeds in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.abstract import abstract
from gradwire_engine.jaxprs.convolutions import holds_convolution
from gradwire_engine.jaxprs.seeds import Seeds, push_units
from gradwire_engine.jaxprs.slicing import needed
from gradwire_engine.planning.transforms import Arrays, Function, check_scalar

FORWARD = "forward"
REVERSE = "reverse"
FORWARD_OVER_REVERSE = "forward_over_reverse"
FORWARD_OVER_FORWARD = "forward_over_forward"

UNROLLED = 16
"""Upper bound on batches of a block that are written out one after another instead of in a loop."""


@dataclass(frozen=True)
class Derivative:
    """A derivative of a function, its mode, and the array that is seeded.

    Attributes:
        mode: one of the four mode names.
        wrt: inputs to differentiate with respect to.
        of: outputs to differentiate; one, of one element, for the Hessian modes.
        array: index of the seeded array: into `wrt`, or into `of` in reverse mode.
        symmetric: whether a Hessian is: what a seed gives is then its row as well as its column.
    """

    mode: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    array: int
    symmetric: bool = True

    @property
    def by_columns(self) -> bool:
        """Whether a seed gives a column of the result, rather than a row."""
        return gives_columns(self.mode, self.symmetric)


def gives_columns(mode: str, symmetric: bool) -> bool:
    """Return whether the seeds of a mode give columns: of a symmetric Hessian they are rows, too."""
    return mode == FORWARD or (mode != REVERSE and not symmetric)


def differentiated(
    function: Function, mode: str, wrt: tuple[str, ...], of: tuple[str, ...], inputs: Arrays
) -> Callable[[list[Any]], list[Any]]:
    """Return the function whose Jacobian a mode computes, of the inputs `wrt`; the other inputs are fixed.

    Its results are the outputs `of`; in the Hessian modes the gradient of the one output in `wrt`.
    """

    def chosen(point: list[Any]) -> list[Any]:
        values = function.call({**inputs, **dict(zip(wrt, point, strict=True))})
        return [values[name] for name in of]

    outputs = needed(chosen, [inputs[name] for name in wrt])

    def scalar(point: list[Any]) -> Any:
        (value,) = outputs(point)
        check_scalar(of[0], value.shape)
        return value.reshape(())

    modes: dict[str, Callable[[list[Any]], list[Any]]] = {
        FORWARD: outputs,
        REVERSE: outputs,
        FORWARD_OVER_REVERSE: jax.grad(scalar),
        FORWARD_OVER_FORWARD: jax.jacfwd(scalar),
    }
    return modes[mode]


def linear_part(
    function: Function, derivative: Derivative, inputs: Arrays
) -> tuple[Callable[[Any], Any], jax.ShapeDtypeStruct]:
    """Return the linear function whose columns are the derivative, and the type of its argument.

    Its results are lists of arrays: tangents of `of` in forward mode, cotangents of `wrt` in
    reverse mode, tangents of the gradient in `wrt` in the Hessian modes.
    """
    # The rows of one output do not depend on what other outputs are asked for.
    of = (derivative.of[derivative.array],) if derivative.mode == REVERSE else derivative.of
    outputs = differentiated(function, derivative.mode, derivative.wrt, of, inputs)
    point = [inputs[name] for name in derivative.wrt]
    if derivative.mode == REVERSE:
        (seeded,), pullback = jax.vjp(outputs, point)

        def pull(cotangent: Any) -> list[Any]:
            (pulled,) = pullback([cotangent])
            return list(pulled)

        return pull, abstract(seeded.shape, seeded.dtype)
    seeded = point[derivative.array]

    # Only the seeded array has a tangent: the others' are zero and need not be carried.
    def moved(value: Any) -> list[Any]:
        return outputs([*point[: derivative.array], value, *point[derivative.array + 1 :]])

    _, push = jax.linearize(moved, seeded)
    return push, abstract(seeded.shape, seeded.dtype)


def block(
    function: Function, derivative: Derivative, inputs: Arrays, start: Any, width: int | None, batch: int
) -> list[Any]:
    """Compute one block of a derivative.

    Args:
        function: with its weights bound.
        inputs: every input of the function.
        start: first seed, a traced integer in [0, seeds - width].
        width: seeds in the block; None for all of them.
        batch: seeds evaluated together, at most `width`. Memory grows with it, memory traffic a seed falls.

    Returns:
        In forward mode, for each of `of`, an array (output size, width): columns of its Jacobian; for a
        Hessian that is not symmetric likewise for each of `wrt`.
        In the other modes, for each of `wrt`, an array (width, input size): rows.
        Their dtype is the one that the row's and the column's dtypes promote to.
    """
    push, seeded = linear_part(function, derivative, inputs)
    width = prod(seeded.shape) if width is None else width

    def batch_from(first: Any) -> list[Any]:
        images = push_units(push, seeded.shape, seeded.dtype, Seeds(first, batch))
        return [image.reshape(batch, -1) if image.size else image.reshape(batch, 0) for image in images]

    if width == batch:
        images = batch_from(start)
    else:
        # The last batch begins early instead of short: its first seeds are the previous one's last.
        offsets = np.minimum(batch * np.arange(-(-width // batch)), width - batch)
        if len(offsets) <= UNROLLED and linear_holds_convolution(push, seeded):
            # In a loop XLA would run convolutions as plain loop nests.
            batches = [batch_from(start + offset) for offset in offsets]
            stacked = [jnp.stack(images) for images in zip(*batches, strict=True)]
        else:
            stacked = lax.map(batch_from, start + jnp.asarray(offsets))
        images = [_joined(image, width) for image in stacked]
    if derivative.by_columns:
        return [image.T.astype(jnp.promote_types(image.dtype, seeded.dtype)) for image in images]
    return [
        image.astype(jnp.promote_types(inputs[name].dtype, seeded.dtype))
        for name, image in zip(derivative.wrt, images, strict=True)
    ]


def whole(
    function: Function,
    mode: str,
    wrt: tuple[str, ...],
    of: tuple[str, ...],
    inputs: Arrays,
    batches: tuple[int, ...],
    symmetric: bool,
) -> list[Any]:
    """Compute a whole derivative: a matrix for each of `of` (of a Hessian, of `wrt`), for each of `wrt`.

    Args:
        function: with its weights bound.
        mode: one of the four mode names.
        wrt, of: inputs and outputs chosen.
        inputs: every input of the function.
        batches: for each seeded array, how many of its seeds are evaluated together; 0 for one without any.
        symmetric: whether a Hessian is.
    """
    parts = []
    for array, batch in enumerate(batches):
        derivative = Derivative(mode, wrt, of, array, symmetric)
        if batch:
            parts.append(block(function, derivative, inputs, 0, None, batch))
        else:
            parts.append(_without_seeds(function, derivative, inputs))
    if not gives_columns(mode, symmetric):
        return [matrix for part in parts for matrix in part]
    return [part[row] for row in range(len(parts[0])) for part in parts]


def _without_seeds(function: Function, derivative: Derivative, inputs: Arrays) -> list[Any]:
    """Return the matrices of an array without elements: of no rows, or of no columns."""
    push, seeded = linear_part(function, derivative, inputs)
    images = jax.eval_shape(push, seeded)
    if derivative.by_columns:
        return [
            jnp.zeros((np.prod(image.shape, dtype=int), 0), jnp.promote_types(image.dtype, seeded.dtype))
            for image in images
        ]
    return [
        jnp.zeros((0, inputs[name].size), jnp.promote_types(inputs[name].dtype, seeded.dtype))
        for name in derivative.wrt
    ]


def linear_holds_convolution(push: Callable[[Any], Any], seeded: Any) -> bool:
    """Return whether a linear function of arrays of these types holds a convolution."""
    return any(map(holds_convolution, jax.make_jaxpr(push)(seeded).jaxpr.eqns))


def _joined(batches: Any, width: int) -> Any:
    """Join batches (count, batch, size) to (width, size), without the seeds that the last batch repeats."""
    count, batch, size = batches.shape
    rows = batches.reshape(count * batch, size)
    repeated = count * batch - width
    if not repeated:
        return rows
    last = (count - 1) * batch
    return jnp.concatenate([rows[:last], rows[last + repeated :]])
