"""A JAX primitive that the service computes: its values, derivatives and batches are calls of the service.

`remote_p` takes the inputs of a function on the service. Its derivative is `remote_p` again, of the
function's jvp transform; that is linear in the tangents, and its transpose is `remote_p` of the vjp
transform. A batch is the service's own leading axis, so that vmap, and with it jacrev, jacfwd and hessian,
is one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Signature, Value
from gradwire.graphs.trees import flatten


class SupportsTransforms(Protocol):
    """The part of `gradwire.Function` that the primitive uses."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs, with shapes and dtypes."""

    def as_jvp(self, wrt: Sequence[str], of: Sequence[str]) -> Any:
        """Return the function from the inputs and the tangents of `wrt` to the tangents of `of`."""

    def as_vjp(self, wrt: Sequence[str], of: Sequence[str]) -> Any:
        """Return the function from the inputs and the cotangents of `of` to the cotangents of `wrt`."""

    def value(self, inputs: dict[str, Any], /, *, batched: Sequence[str] | None = None) -> Any:
        """Evaluate on the service: an array, or a tuple of those of several outputs.

        Inputs are given by name; those in `batched` have a leading batch axis, and so have all outputs then.
        """


@dataclass(frozen=True)
class Product:
    """The transform that a function was made by: the JVP or VJP of another function.

    Attributes:
        base: the other function.
        kind: "jvp" or "vjp".
        wrt: names of the inputs that it is differentiated with respect to.
        of: names of the outputs that are differentiated.
    """

    base: Handle
    kind: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the values whose tangents or cotangents are the last inputs, in which it is linear."""
        return self.wrt if self.kind == "jvp" else self.of


@dataclass(frozen=True, eq=False)
class Handle:
    """A function on the service, as a parameter of the primitive; compared by identity.

    Attributes:
        function: the function itself.
        product: the transform that it was made by, or None.
    """

    function: SupportsTransforms
    product: Product | None = None
    _derived: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Handle] = field(
        default_factory=dict, repr=False
    )

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The function's inputs, in order."""
        return self.function.signature.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The function's outputs, in order."""
        return self.function.signature.outputs

    @property
    def linear(self) -> int:
        """How many of the last inputs the function is linear in."""
        return len(self.product.vectors) if self.product else 0

    def transformed(self, kind: str, wrt: tuple[str, ...], of: tuple[str, ...]) -> Handle:
        """Return the jvp or vjp of this function; the same handle each time, so that JAX compiles once."""
        key = (kind, wrt, of)
        if key not in self._derived:
            transform = self.function.as_jvp if kind == "jvp" else self.function.as_vjp
            self._derived[key] = Handle(transform(wrt, of), Product(self, kind, wrt, of))
        return self._derived[key]

    def result_types(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], Any]]:
        """Return shape and dtype of each output for inputs of these shapes.

        Raises:
            InvalidArgumentError: they do not follow from the function's signature.
        """
        extents: dict[str, int] = {}
        for value, shape in zip(self.inputs, shapes, strict=True):
            for name, extent in zip(value.shape or (), shape, strict=False):
                if isinstance(name, str):
                    extents[name] = extent
        types = []
        for value in self.outputs:
            known = (
                None
                if value.shape is None
                else [extents.get(e) if isinstance(e, str) else e for e in value.shape]
            )
            if value.dtype is None or known is None or any(extent is None for extent in known):
                raise InvalidArgumentError(
                    f"the shape of output {value} does not follow from the inputs' shapes, and JAX must know "
                    "it before the call; use a model whose outputs have fixed or named extents"
                )
            types.append((tuple(extent for extent in known if extent is not None), value.dtype))
        return types


remote_p = Primitive("gradwire_remote")
remote_p.multiple_results = True


def _call(*arrays: Any, handle: Handle, batched: tuple[bool, ...]) -> list[np.ndarray[Any, Any]]:
    """Evaluate the function on the service."""
    inputs = {value.name: np.asarray(array) for value, array in zip(handle.inputs, arrays, strict=True)}
    leading = [value.name for value, flag in zip(handle.inputs, batched, strict=True) if flag]
    results = handle.function.value(inputs, batched=leading or None)
    _, outputs = flatten(results)
    return [
        np.asarray(result, dtype=value.dtype) for result, value in zip(outputs, handle.outputs, strict=True)
    ]


def _implementation(*arrays: Any, handle: Handle, batched: tuple[bool, ...]) -> list[Any]:
    return [jnp.asarray(result) for result in _call(*arrays, handle=handle, batched=batched)]


def _types(shapes: Sequence[tuple[int, ...]], handle: Handle, batched: tuple[bool, ...]) -> list[Any]:
    single = [shape[1:] if flag else shape for shape, flag in zip(shapes, batched, strict=True)]
    leading = next(((shape[0],) for shape, flag in zip(shapes, batched, strict=True) if flag), ())
    return [((*leading, *shape), dtype) for shape, dtype in handle.result_types(single)]


def _abstract(*avals: Any, handle: Handle, batched: tuple[bool, ...]) -> list[Any]:
    types = _types([aval.shape for aval in avals], handle, batched)
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in types]


remote_p.def_impl(_implementation)  # type: ignore[no-untyped-call]
remote_p.def_abstract_eval(_abstract)  # type: ignore[no-untyped-call]


def _by_callback(*arrays: Any, handle: Handle, batched: tuple[bool, ...]) -> Any:
    kinds = [
        jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
        for shape, dtype in _types([array.shape for array in arrays], handle, batched)
    ]
    return jax.pure_callback(lambda *given: _call(*given, handle=handle, batched=batched), kinds, *arrays)


mlir.register_lowering(remote_p, mlir.lower_fun(_by_callback, multiple_results=True))


def _bind(arrays: Sequence[Any], handle: Handle, batched: Sequence[bool]) -> list[Any]:
    results: list[Any] = remote_p.bind(*arrays, handle=handle, batched=tuple(batched))  # type: ignore[no-untyped-call]
    return results


def _instantiated(tangent: Any) -> Any:
    return ad.instantiate_zeros(tangent)  # type: ignore[no-untyped-call]


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, handle: Handle, batched: tuple[bool, ...]
) -> tuple[list[Any], list[Any]]:
    """Apply the chain rule; in inputs that the function is linear in, it is its own derivative."""
    outputs = _bind(primals, handle, batched)
    fixed = len(primals) - handle.linear
    moving = [place for place, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]
    terms: list[list[Any]] = []
    if any(place >= fixed for place in moving):
        vectors = [_instantiated(tangent) for tangent in tangents[fixed:]]
        terms.append(_bind([*primals[:fixed], *vectors], handle, batched))
    inner = [place for place in moving if place < fixed]
    floating = [place for place, value in enumerate(handle.outputs) if value.floating]
    if inner and floating:
        names = tuple(handle.inputs[place].name for place in inner)
        of = tuple(handle.outputs[place].name for place in floating)
        vectors = [tangents[place] for place in inner]
        flags = [*batched, *(batched[place] for place in inner)]
        products = iter(_bind([*primals, *vectors], handle.transformed("jvp", names, of), flags))
        zeros = [ad.Zero(jax.typeof(output).to_tangent_aval()) for output in outputs]
        terms.append([next(products) if place in floating else zero for place, zero in enumerate(zeros)])
    if not terms:
        return outputs, [ad.Zero(jax.typeof(output).to_tangent_aval()) for output in outputs]
    if len(terms) == 1:
        return outputs, terms[0]
    return outputs, [left + right for left, right in zip(*terms, strict=True)]


ad.primitive_jvps[remote_p] = _jvp


def _transpose(
    cotangents: Sequence[Any], *arguments: Any, handle: Handle, batched: tuple[bool, ...]
) -> list[Any]:
    """Transpose: that of a jvp in its tangents is the vjp, that of a vjp in its cotangents the jvp."""
    product, fixed = handle.product, len(arguments) - handle.linear
    assert product is not None, "only products are linear"
    results: list[Any] = [None] * len(arguments)
    wanted = [
        place for place in range(fixed, len(arguments)) if isinstance(arguments[place], ad.UndefinedPrimal)
    ]
    given = [place for place, one in enumerate(cotangents) if type(one) is not ad.Zero]
    if not given:
        return results
    targets = tuple(product.vectors[place - fixed] for place in wanted)
    if product.kind == "jvp":
        sources = tuple(product.of[place] for place in given)
        transposed = product.base.transformed("vjp", targets, sources)
    else:
        sources = tuple(product.wrt[place] for place in given)
        transposed = product.base.transformed("jvp", sources, targets)
    flags = [*batched[:fixed], *[any(batched)] * len(given)]
    primals = [*arguments[:fixed], *(cotangents[place] for place in given)]
    for place, result in zip(wanted, _bind(primals, transposed, flags), strict=True):
        # A vector shared by a whole batch gets the sum of the cotangents of its elements.
        results[place] = result.sum(0) if any(batched) and not batched[place] else result
    return results


ad.primitive_transposes[remote_p] = _transpose


def _batch(
    arrays: Sequence[Any], axes: Sequence[Any], *, handle: Handle, batched: tuple[bool, ...]
) -> tuple[list[Any], list[int]]:
    """Batch over one leading axis, as the service does; a batch of batches is one longer batch."""
    mapped = [isinstance(axis, int) for axis in axes]
    arrays = [
        jnp.moveaxis(array, axis, 0) if flag else array
        for array, axis, flag in zip(arrays, axes, mapped, strict=True)
    ]
    if not any(batched):
        outputs = _bind(arrays, handle, mapped)
        return outputs, [0] * len(outputs)
    outer = next(array.shape[0] for array, flag in zip(arrays, mapped, strict=True) if flag)
    inner = next(
        array.shape[1 if over else 0]
        for array, flag, over in zip(arrays, batched, mapped, strict=True)
        if flag
    )
    flat = []
    for array, over, within in zip(arrays, mapped, batched, strict=True):
        if over or within:
            rest = array.shape[over + within :]
            leading = (outer if over else 1, inner if within else 1)
            array = jnp.broadcast_to(array.reshape(*leading, *rest), (outer, inner, *rest))
            array = array.reshape(outer * inner, *rest)
        flat.append(array)
    flags = [over or within for over, within in zip(mapped, batched, strict=True)]
    outputs = [output.reshape(outer, inner, *output.shape[1:]) for output in _bind(flat, handle, flags)]
    return outputs, [0] * len(outputs)


batching.primitive_batchers[remote_p] = _batch
