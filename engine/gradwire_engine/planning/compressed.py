"""Computes blocks of sparse derivatives, as JAX functions: columns or rows that share no entry, added up.

A color is a seed: ones at the columns (in reverse mode the rows) of that color. The image of a seed is a
vector of the compressed derivative, in which each entry of those columns stands alone; one gather takes the
entries of a block out, in the order in which they travel. A. R. Curtis, M. J. D. Powell, J. K. Reid, "On the
estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13, 1974.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.abstract import abstract
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


TOGETHER = 1 << 18
"""Elements of all images of a block up to which they are written out: XLA computes what is taken alone."""


@dataclass(frozen=True)
class Form:
    """How the images of a block are computed and its entries taken out.

    Attributes:
        width: colors in the block.
        batch: colors evaluated together; at most `width`.
        entries: the most entries of a block.
        longest: the most entries of a color. Or 0: the images of all colors are taken as one flat array, in
            which each entry has its place.
    """

    width: int
    batch: int
    entries: int
    longest: int


def block(
    push: Linear,
    seeded: Sequence[Any],
    colors: Any,
    places: Any,
    offsets: Any,
    first: Any,
    form: Form,
    dtype: Any,
) -> Any:
    """Compute the entries of one block.

    Args:
        push: linear, see `linear_part`.
        seeded: arrays of the types of its argument.
        colors: the color of each seeded element, over all arrays; negative for none.
        places: of all entries, color by color: the place of each in the image of its color, or in all images
            of its block (see `Form`). As many more as a slice may reach beyond.
        offsets: for each color of the block, and for `form.batch` more, where its entries begin in `places`.
        first: the first color of the block, a traced integer.
        form: how.
        dtype: of the entries.

    Returns:
        `form.entries` values; those beyond the block's own are of no meaning.
    """

    def image(color: Any) -> Any:
        results = push(_seeds(colors == color, seeded))
        return jnp.concatenate([jnp.ravel(result).astype(dtype) for result in results])

    if not form.longest:
        images = jnp.stack([image(first + k) for k in range(form.width)])
        return _taken(jnp.ravel(images), lax.dynamic_slice_in_dim(places, offsets[0], form.entries))

    def step(k: Any, values: Any) -> Any:
        """Add the entries of a batch; what a color writes past its own is written over by the next one."""
        start = k * form.batch
        if form.batch == 1:
            images = image(first + start)[None]
        else:
            images = jax.vmap(image)(first + start + jnp.arange(form.batch, dtype=colors.dtype))

        def place(b: Any, values: Any) -> Any:
            begin = offsets[start + b]
            taken = _taken(images[b], lax.dynamic_slice_in_dim(places, begin, form.longest))
            return lax.dynamic_update_slice_in_dim(values, taken, begin - offsets[0], 0)

        return place(0, values) if form.batch == 1 else lax.fori_loop(0, form.batch, place, values)

    values = jnp.zeros(form.entries + form.longest, dtype)
    steps = -(-form.width // form.batch)
    types = [abstract(array.shape, array.dtype) for array in seeded]
    if steps <= derivatives.UNROLLED and derivatives.linear_holds_convolution(push, types):
        # In a loop XLA would run convolutions as plain loop nests.
        for k in range(steps):
            values = step(k, values)
    else:
        values = lax.fori_loop(0, steps, lambda k, values: step(k.astype(colors.dtype), values), values)
    return values[: form.entries]


def _taken(image: Any, places: Any) -> Any:
    return image.at[places].get(mode="promise_in_bounds")


def _seeds(chosen: Any, seeded: Sequence[Any]) -> list[Any]:
    """Cut a flat seed to arrays of the types of the seeded ones."""
    bounds = np.cumsum([prod(array.shape) for array in seeded])[:-1]
    parts = jnp.split(chosen, bounds)
    return [part.astype(array.dtype).reshape(array.shape) for part, array in zip(parts, seeded, strict=True)]
