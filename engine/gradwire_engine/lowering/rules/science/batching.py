"""Vmap of the `gradwire.sci` domain: evaluates one graph over a batch.

- `Vmap(x, ...; body, in_axes, out_axes) -> y, ...`: the graph `body`, evaluated for each slice of the
  inputs, all at once. `in_axes` has the axis (0 or more) along which each input is sliced, or -1 for
  one that every evaluation is given whole; at least one input is sliced, and those that are have the same
  extent there. `out_axes` has the axis (0 or more) on which the slices of each output are stacked.
  Both are all 0 by default. The body takes the slices, without the axis, in the order of the inputs, and
  gives a slice of each output; it may use values from the enclosing graphs, which are whole. All are tensors.

Modes and orders of derivatives are those of the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradwire_engine.lowering.registry import SCI, Node, Value, rule

UNMAPPED = -1
"""The entry of `in_axes` for an input that is not sliced."""


@rule("Vmap", domain=SCI)
def vmap(node: Node, *inputs: Value) -> tuple[Value, ...]:
    """Vmap: evaluates its body for all slices of the inputs at once."""
    body = node.subgraph("body")
    for kind, inside, outside in (
        ("inputs", len(body.input), len(inputs)),
        ("outputs", len(body.output), len(node.outputs)),
    ):
        if inside != outside:
            raise node.fail(f"its body has {inside} {kind} and the node has {outside}; make them as many")
    in_axes = _axes(node, "in_axes", len(inputs), UNMAPPED)
    out_axes = _axes(node, "out_axes", len(node.outputs), 0)
    mapped = [place for place, axis in enumerate(in_axes) if axis != UNMAPPED]
    _check_extents(node, inputs, in_axes, mapped)

    def one(*slices: Value) -> tuple[Value, ...]:
        given = list(inputs)
        for place, value in zip(mapped, slices, strict=True):
            given[place] = value
        outputs = node.run(body, *given)
        for place, (value, axis) in enumerate(zip(outputs, out_axes, strict=True)):
            if not hasattr(value, "shape"):
                raise node.fail(f"output {place} of its body is no tensor; only tensors can be stacked")
            if axis > value.ndim:
                raise node.fail(f"out_axes puts output {place} on axis {axis} of {value.ndim + 1}")
        return tuple(jnp.asarray(value) for value in outputs)

    slices = [jnp.asarray(inputs[place]) for place in mapped]
    axes = tuple(in_axes[place] for place in mapped)
    results: tuple[Value, ...] = jax.vmap(one, in_axes=axes, out_axes=tuple(out_axes))(*slices)
    return results


def _axes(node: Node, name: str, count: int, least: int) -> list[int]:
    """Return an attribute of `count` axes, zeros where it is not set; `least` is the smallest allowed."""
    axes: list[int] = node.attr(name) or [0] * count
    if len(axes) != count:
        raise node.fail(f"attribute {name} has {len(axes)} entries; it needs {count}")
    if any(axis < least for axis in axes):
        raise node.fail(f"attribute {name} is {axes}; axes count from 0")
    return axes


def _check_extents(node: Node, inputs: Sequence[Value], axes: Sequence[int], mapped: Sequence[int]) -> None:
    """Raise `InvalidGraph` unless the mapped axes exist and have one extent."""
    if not mapped:
        raise node.fail(f"in_axes slices no input; give at least one an axis, not {UNMAPPED}")
    extents = {}
    for place in mapped:
        if not hasattr(inputs[place], "shape"):
            raise node.fail(f"input {place} is no tensor; only tensors can be sliced")
        if axes[place] >= inputs[place].ndim:
            raise node.fail(
                f"in_axes slices input {place} along axis {axes[place]}, and it has {inputs[place].ndim} axes"
            )
        extents[place] = inputs[place].shape[axes[place]]
    if len(set(extents.values())) != 1:
        listed = ", ".join(f"{extent} of input {place}" for place, extent in extents.items())
        raise node.fail(f"the sliced axes have different extents: {listed}")
