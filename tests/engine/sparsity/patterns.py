"""What tests of sparsity patterns share: patterns of JAX functions, found and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gradwire_engine.abstract import abstract
from gradwire_engine.sparsity.detection import Detected, detect, linear_program

Array = np.ndarray[Any, Any]


def detected(
    function: Callable[..., Any], *shapes: tuple[int, ...], known: Mapping[int, Array] | None = None
) -> Detected:
    """Find the pattern of a function's Jacobian in all arguments but the known ones, which are constants."""
    known = known or {}
    constants = [
        abstract(known[k].shape, known[k].dtype) if k in known else abstract(shape, float)
        for k, shape in enumerate(shapes)
    ]
    open_ones = [k for k in range(len(shapes)) if k not in known]
    tangents = [constants[k] for k in open_ones]

    def push(*values: Any) -> list[Any]:
        point, directions = list(values[: len(shapes)]), values[len(shapes) :]

        def moved(*moving: Any) -> Any:
            arguments = list(point)
            for k, value in zip(open_ones, moving, strict=True):
                arguments[k] = value
            return jax.tree.leaves(function(*arguments))

        _, linear = jax.linearize(moved, *[point[k] for k in open_ones])
        return list(linear(*directions))

    return detect(linear_program(push, constants, tangents, known))


def found(function: Callable[..., Any], *shapes: tuple[int, ...], known: Any = None) -> Array:
    """Return the pattern as a boolean matrix."""
    return detected(function, *shapes, known=known).pattern.dense()


def hessian_found(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Array:
    """Return the pattern of a Hessian as a boolean matrix."""
    return found(jax.grad(function, tuple(range(len(shapes)))), *shapes)


def measured(
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    known: Any = None,
    points: int = 3,
    scale: float = 1.0,
) -> Array:
    """Return where the dense Jacobian is not zero at any of several random points: the oracle."""
    known = known or {}
    open_ones = tuple(k for k in range(len(shapes)) if k not in known)

    def flat(*arguments: Any) -> Any:
        return jax.numpy.concatenate([leaf.ravel() for leaf in jax.tree.leaves(function(*arguments))])

    draw = np.random.default_rng(7)
    total: Any = False
    for _ in range(points):
        arguments = [
            known[k] if k in known else scale * (0.2 + draw.random(shape)) * draw.choice([-1, 1], shape)
            for k, shape in enumerate(shapes)
        ]
        jacobians = jax.jacfwd(flat, open_ones)(*arguments)
        joined = np.concatenate([np.asarray(part).reshape(part.shape[0], -1) for part in jacobians], axis=1)
        total = total | (joined != 0)
    return np.asarray(total)
