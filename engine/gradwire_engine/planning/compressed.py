"""Computes blocks of sparse derivatives, as JAX functions: columns or rows that share no entry, added up.

A color is a seed: ones at the columns (in reverse mode the rows) of that color. The image of a seed is a
vector of the compressed derivative, in which each entry of those columns stands alone; one gather takes the
entries of a block out, in the order in which they travel. A. R. Curtis, M. J. D. Powell, J. K. Reid, "On the
estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13, 1974.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.abstract import abstract
from gradwire_engine.jaxprs.convolutions import holds_convolution
from gradwire_engine.planning import derivatives
from gradwire_engine.planning.transforms import Arrays, Function

Linear = Callable[[list[Any]], list[Any]]


def linear_part(
    function: Function, mode: str, wrt: tuple[str, ...], of: tuple[str, ...], inputs: Arrays
) -> tuple[Linear, list[Any]]:
    """Return the linear function of all seeded arrays together, and arrays of their types.

    It maps tangents of all of `wrt` to those of the results (of `of`, in the Hessian modes of the gradient),
    or in reverse mode cotangents of all of `of` to those of `wrt`.
    """
    outputs = derivatives.differentiated(function, mode, wrt, of, inputs)
    point = [inputs[name] for name in wrt]
    if mode == derivatives.REVERSE:
        seeded, pullback = jax.vjp(outputs, point)
        return lambda cotangents: list(pullback(cotangents)[0]), list(seeded)
    _, push = jax.linearize(outputs, point)
    return lambda tangents: list(push(tangents)), point


def block(
    push: Linear,
    seeded: Sequence[Any],
    colors: Any,
    positions: Any,
    first: Any,
    width: int,
    batch: int,
    dtype: Any,
) -> Any:
    """Compute the entries of one block.

    Args:
        push: linear, see `linear_part`.
        seeded: arrays of the types of its argument.
        colors: the color of each seeded element, over all arrays; negative for none.
        positions: for each entry of the block its place in the compressed vectors, taken as one flat array.
        first: the first color of the block, a traced integer.
        width: colors in the block.
        batch: colors evaluated together; at most `width`.
        dtype: of the entries.
    """

    def image(color: Any) -> Any:
        results = push(_seeds(colors == color, seeded))
        return jnp.concatenate([jnp.ravel(result).astype(dtype) for result in results])

    every = first + jnp.arange(width, dtype=colors.dtype)
    if width == 1:
        images = image(every[0])
    elif batch >= width:
        images = jax.vmap(image)(every)
    elif width <= derivatives.UNROLLED and _holds_convolution(push, seeded):
        # In a loop XLA would run convolutions as plain loop nests.
        images = jnp.stack([image(every[k]) for k in range(width)])
    elif batch > 1:
        # Whole batches: colors past the last are on no column, so that their images are zero and not read.
        padded = first + jnp.arange(batch * -(-width // batch), dtype=colors.dtype)
        images = lax.map(jax.vmap(image), padded.reshape(-1, batch))
    else:
        images = lax.map(image, every)
    return jnp.ravel(images).at[positions].get(mode="promise_in_bounds")


def _seeds(chosen: Any, seeded: Sequence[Any]) -> list[Any]:
    """Cut a flat seed to arrays of the types of the seeded ones."""
    bounds = np.cumsum([prod(array.shape) for array in seeded])[:-1]
    parts = jnp.split(chosen, bounds)
    return [part.astype(array.dtype).reshape(array.shape) for part, array in zip(parts, seeded, strict=True)]


def _holds_convolution(push: Linear, seeded: Sequence[Any]) -> bool:
    types = [abstract(array.shape, array.dtype) for array in seeded]
    return any(map(holds_convolution, jax.make_jaxpr(push)(types).jaxpr.eqns))
