"""Compiles kernels: block evaluators that are serialized as executables.

A spec gives the computation and its shapes; compiling is the only step that traces. Weights and inputs are
arguments, so one executable serves every point.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import serialize_executable

from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.errors import InvalidInput, LimitExceeded, one_line
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.cost import Cost, estimate
from gradwire_engine.limits import Limits
from gradwire_engine.planning import compressed, derivatives
from gradwire_engine.planning.derivatives import Derivative
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.planning.substituting import Substituting, values_of
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.refusals import refusals
from gradwire_engine.values import Arguments, Block, dtype_of

FORMAT = 3
"""Version of the serialized form; part of every key."""


@lru_cache(maxsize=1)
def device_fingerprint() -> str:
    """Hash what an executable depends on: JAX's version and the device it was compiled for.

    A CPU executable uses every instruction-set extension of the machine that compiled it, so those are
    part of it; a GPU executable depends on the model.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
        kind = " ".join(sorted(flags.split(":")[-1].split()))
    else:
        kind = f"{device.device_kind} {device.client.platform_version}"
    return hashlib.sha256(f"{FORMAT} {jax.__version__} {device.platform} {kind}".encode()).hexdigest()


@dataclass(frozen=True)
class EvaluateSpec:
    """Evaluate a function.

    Attributes:
        function: what to evaluate.
        arguments: types of all its inputs, the batch axis of batched ones included.
        outputs: outputs wanted, in order; empty for all.
        batched: inputs with a leading batch axis; every output gains one.
    """

    function: FunctionSpec
    arguments: Arguments
    outputs: tuple[str, ...] = ()
    batched: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockSpec:
    """Compute one block of a derivative; its first seed is an argument.

    Attributes:
        function: what is differentiated.
        arguments: types of all its inputs.
        derivative: which derivative, seeded where.
        seeds: seeds of the seeded array in all.
        width: seeds a block; at most `seeds`.
        batch: seeds evaluated together; at most `width`.
    """

    function: FunctionSpec
    arguments: Arguments
    derivative: Derivative
    seeds: int
    width: int
    batch: int


@dataclass(frozen=True)
class CompressedSpec:
    """Compute one block of a sparse derivative: some colors, and the entries found in their images.

    Attributes:
        function: what is differentiated.
        arguments: types of all its inputs.
        mode: one of the four mode names.
        wrt, of: inputs and outputs chosen.
        seeds: colors of this kernel in all.
        first: the number of the first of them among those of all kernels.
        form: how a block is computed.
        structure: types of the arrays that say which values: colors, places and offsets.
        dtype: of the values.
        substituting: how values follow from what is found in the images; None where they are found there.
    """

    function: FunctionSpec
    arguments: Arguments
    mode: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    seeds: int
    first: int
    form: compressed.Form
    structure: Arguments
    dtype: str
    substituting: Substituting | None = None

    @property
    def width(self) -> int:
        """Colors a block."""
        return self.form.width


@dataclass(frozen=True)
class SampleSpec:
    """Compute whole derivatives of some samples of a batch, each independent of the others.

    Attributes:
        function: what is differentiated.
        arguments: types of all its inputs, the batch axis of batched ones included.
        batched: inputs with a leading batch axis.
        mode: one of the four mode names.
        wrt, of: inputs and outputs chosen.
        seeds: samples in all.
        width: samples a block; at most `seeds`.
        batches: for each seeded array, how many of its seeds are evaluated together.
        symmetric: whether a Hessian is.
    """

    function: FunctionSpec
    arguments: Arguments
    batched: tuple[str, ...]
    mode: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    seeds: int
    width: int
    batches: tuple[int, ...]
    symmetric: bool


COLUMN_COLORS, ROW_COLORS = "\0column_colors", "\0row_colors"
PLACES, OFFSETS = "\0places", "\0offsets"
"""Names of the arrays of a sparse derivative's structure among a kernel's inputs; no input is called so."""

Spec = EvaluateSpec | BlockSpec | CompressedSpec | SampleSpec
DerivativeSpec = BlockSpec | CompressedSpec | SampleSpec


@dataclass(frozen=True)
class Kernel:
    """A compiled executable and the order of its arguments and results.

    Attributes:
        spec: what it computes.
        output_names: of an evaluation, in order; empty for a block.
        cost: operations and bytes of one run, as XLA accounts for them.
        compiled: the loaded executable.
        weight_names, input_names: the order of its arguments.
    """

    spec: Spec
    output_names: tuple[str, ...]
    cost: Cost
    weight_names: tuple[str, ...]
    input_names: tuple[str, ...]
    compiled: Any

    def run(
        self, weights: Mapping[str, Any], inputs: Mapping[str, Any], block: Block | None = None
    ) -> tuple[np.ndarray[Any, Any], ...]:
        """Run the executable; wait for the result.

        Args:
            weights, inputs: NumPy or JAX arrays, by name.
            block: which seeds, for a kernel of blocks.

        Returns:
            An evaluation's outputs in order, or one row-major matrix for each piece of the block, or the
            values of a block of a sparse derivative; read-only.

        Raises:
            InvalidInput: an array is not of the type that the kernel is for.
            LimitExceeded: the device has not enough memory.
        """
        if block is not None and isinstance(self.spec, CompressedSpec):
            values = self._values(self.spec, weights, inputs, block.start)
            return (values[: block.last_value - block.first_value],)
        if block is None or isinstance(self.spec, EvaluateSpec):
            return self._call(weights, inputs, 0)
        # Every run computes `width` seeds; the last block of an array begins early instead of short.
        start = min(block.start, self.spec.seeds - self.spec.width)
        results = self._call(weights, inputs, start)
        if block.stop - block.start == self.spec.width:
            return results
        cut = slice(block.start - start, block.stop - start)
        if isinstance(self.spec, SampleSpec):
            rows = [len(result) // self.spec.width for result in results]
            return tuple(
                result[cut.start * m : cut.stop * m] for result, m in zip(results, rows, strict=True)
            )
        if isinstance(self.spec, BlockSpec) and self.spec.derivative.by_columns:
            return tuple(np.ascontiguousarray(result[:, cut]) for result in results)
        return tuple(result[cut] for result in results)

    def _values(
        self, spec: CompressedSpec, weights: Mapping[str, Any], inputs: Mapping[str, Any], start: int
    ) -> np.ndarray[Any, Any]:
        def found(inputs: Mapping[str, Any], start: int) -> np.ndarray[Any, Any]:
            (values,) = self._call(weights, inputs, start)
            return values

        if spec.substituting is None:
            return found(inputs, start)
        colors, places, offsets = (name for name, _ in spec.structure)
        return values_of(found, spec.substituting, (colors, places, offsets), spec.width, inputs)

    def _call(
        self, weights: Mapping[str, Any], inputs: Mapping[str, Any], start: int
    ) -> tuple[np.ndarray[Any, Any], ...]:
        try:
            results = self.compiled(
                [weights[name] for name in self.weight_names],
                [inputs[name] for name in self.input_names],
                np.array([start], np.int64),
            )
            return tuple(np.asarray(result) for result in results)
        except TypeError as error:
            raise InvalidInput(f"an array does not fit the kernel: {one_line(error)}", "inputs") from error
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            needed = self.cost.memory_bytes
            raise LimitExceeded(
                f"the device has no {needed} bytes for this: {one_line(error)}", "device_memory", 0, needed
            ) from error

    def serialize(self) -> bytes:
        """Serialize the executable and what `load_kernel` needs; loading traces nothing."""
        payload, in_tree, out_tree = serialize_executable.serialize(self.compiled)
        described = (self.output_names, self.cost, self.weight_names, self.input_names)
        return pickle.dumps((FORMAT, self.spec, described, payload, in_tree, out_tree))


def load_kernel(data: bytes) -> Kernel:
    """Load a serialized kernel.

    The data must come from `Kernel.serialize` on a device of the same kind, through a channel that
    nobody else writes to: loading executes what it contains.
    """
    form, spec, described, payload, in_tree, out_tree = pickle.loads(data)  # noqa: S301  (made by our own compiler)
    if form != FORMAT:
        raise ValueError(f"a kernel of format {form}, not {FORMAT}")
    if b"lapack_" in payload:
        _initialize_lapack()
    compiled = serialize_executable.deserialize_and_load(payload, in_tree, out_tree)
    output_names, cost, weight_names, input_names = described
    return Kernel(spec, output_names, cost, weight_names, input_names, compiled)


@lru_cache(maxsize=1)
def _initialize_lapack() -> None:
    """Resolve LAPACK's functions.

    JAX does so when it lowers a call of one. A process that only loads executables never lowers, and would
    call through null pointers.
    """
    matrix = np.ones((1, 1), np.float32)
    jax.jit(jax.lax.linalg.cholesky).trace(matrix).lower(lowering_platforms=("cpu",))


def place(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Put arrays on the device, for a kernel that runs many times on the same ones."""
    return {name: jax.device_put(array) for name, array in arrays.items()}


def compile_kernel(graph: Graph, spec: Spec, limits: Limits | None = None) -> Kernel:
    """Trace, lower and compile a kernel; takes from tens of milliseconds to many seconds.

    Raises:
        InvalidInput, InvalidGraph, NotDifferentiable: the spec does not fit the graph.
        LimitExceeded: an array, or the whole evaluation, is over a limit.
    """
    limits = limits or Limits()
    weight_names = tuple(sorted(graph.weights))
    weights = [abstract(graph.weights[name].shape, graph.weights[name].dtype) for name in weight_names]
    start = abstract((1,), np.int64)
    if isinstance(spec, EvaluateSpec):
        run, input_names, output_names = _evaluation(graph, spec, limits)
    elif isinstance(spec, BlockSpec):
        run, input_names, output_names = _block(graph, spec, limits)
    elif isinstance(spec, SampleSpec):
        run, input_names, output_names = _samples(graph, spec, limits)
    else:
        run, input_names, output_names = _compressed(graph, spec, limits)

    def flat(weight_values: list[Any], input_values: list[Any], start: Any) -> list[Any]:
        return run(
            dict(zip(weight_names, weight_values, strict=True)),
            dict(zip(input_names, input_values, strict=True)),
            start,
        )

    order = dict(arguments_of(spec))
    inputs = [abstract_argument(order[name]) for name in input_names]
    with refusals("the function cannot be evaluated on these inputs"):
        traced = jax.jit(flat, keep_unused=True).trace(weights, inputs, start)
    with refusals("the function cannot be compiled"):
        compiled = traced.lower().compile()
    cost = _measured(compiled, estimate(traced.jaxpr))
    if cost.memory_bytes > limits.evaluation_bytes:
        raise LimitExceeded(
            f"evaluating this needs about {cost.memory_bytes} bytes at once; "
            f"the limit is {limits.evaluation_bytes}",
            "evaluation_bytes",
            limits.evaluation_bytes,
            cost.memory_bytes,
        )
    return Kernel(spec, output_names, cost, weight_names, input_names, compiled)


Run = Callable[[Mapping[str, Any], Mapping[str, Any], Any], list[Any]]


def _evaluation(
    graph: Graph, spec: EvaluateSpec, limits: Limits
) -> tuple[Run, tuple[str, ...], tuple[str, ...]]:
    sample, _ = without_batch(spec.arguments, spec.batched)
    traced = TracedFunction(graph, spec.function, sample, limits)
    names = tuple(name for name, _ in traced.signature.outputs)
    for name in spec.outputs:
        if name not in names:
            raise InvalidInput(f"there is no output {name!r}; there are: {', '.join(names)}", "outputs")
    wanted = spec.outputs or names
    input_names = tuple(name for name, _ in traced.signature.inputs)

    def run(weights: Mapping[str, Any], inputs: Mapping[str, Any], start: Any) -> list[Any]:
        function = traced.bind(weights)

        def evaluate(values: Mapping[str, Any]) -> list[Any]:
            outputs = function.call(values)
            return [outputs[name] for name in wanted]

        if not spec.batched:
            return evaluate(inputs)
        axes = {name: 0 if name in spec.batched else None for name in inputs}
        return jax.vmap(evaluate, in_axes=(axes,))(dict(inputs))

    return run, input_names, wanted


def without_batch(arguments: Arguments, batched: tuple[str, ...]) -> tuple[Arguments, int]:
    """Return the argument types of one evaluation of a batch, and how many there are (1 without a batch).

    Raises:
        InvalidInput: a batched input is not there, has no leading axis, or another extent than others.
    """
    given = dict(arguments)
    extents = {}
    for name in batched:
        if name not in given:
            raise InvalidInput(f"batched names {name!r}, which is not an input given", "batched")
        if not given[name].shape:
            raise InvalidInput(f"input {name!r} is a scalar: it has no batch axis", f'inputs["{name}"]')
        extents[name] = given[name].shape[0]
    if len(set(extents.values())) > 1:
        listed = ", ".join(f"{name}: {extent}" for name, extent in extents.items())
        raise InvalidInput(f"batched inputs differ in their leading extent ({listed})", "batched")
    sample = tuple(
        (name, type(value)(value.dtype, value.shape[1:]) if name in extents else value)
        for name, value in arguments
    )
    return sample, next(iter(extents.values()), 1)


def _block(graph: Graph, spec: BlockSpec, limits: Limits) -> tuple[Run, tuple[str, ...], tuple[str, ...]]:
    traced = TracedFunction(graph, spec.function, spec.arguments, limits)
    input_names = tuple(name for name, _ in traced.signature.inputs)

    def run(weights: Mapping[str, Any], inputs: Mapping[str, Any], start: Any) -> list[Any]:
        function = traced.bind(weights)
        return derivatives.block(function, spec.derivative, inputs, start[0], spec.width, spec.batch)

    return run, input_names, ()


def _samples(graph: Graph, spec: SampleSpec, limits: Limits) -> tuple[Run, tuple[str, ...], tuple[str, ...]]:
    sample, _ = without_batch(spec.arguments, spec.batched)
    traced = TracedFunction(graph, spec.function, sample, limits)
    names = tuple(name for name, _ in traced.signature.inputs)

    def run(weights: Mapping[str, Any], inputs: Mapping[str, Any], start: Any) -> list[Any]:
        function = traced.bind(weights)
        taken = {
            name: lax.dynamic_slice_in_dim(value, start[0], spec.width) if name in spec.batched else value
            for name, value in inputs.items()
        }

        def one(point: Mapping[str, Any]) -> list[Any]:
            return derivatives.whole(
                function, spec.mode, spec.wrt, spec.of, point, spec.batches, spec.symmetric
            )

        axes = {name: 0 if name in spec.batched else None for name in taken}
        matrices = jax.vmap(one, in_axes=(axes,))(taken)
        # (samples, rows, columns) to (samples x rows, columns)
        return [matrix.reshape(matrix.shape[0] * matrix.shape[1], matrix.shape[2]) for matrix in matrices]

    return run, names, ()


def _compressed(
    graph: Graph, spec: CompressedSpec, limits: Limits
) -> tuple[Run, tuple[str, ...], tuple[str, ...]]:
    traced = TracedFunction(graph, spec.function, spec.arguments, limits)
    names = tuple(name for name, _ in traced.signature.inputs)
    colors, places, offsets = (name for name, _ in spec.structure)

    def run(weights: Mapping[str, Any], inputs: Mapping[str, Any], start: Any) -> list[Any]:
        function = traced.bind(weights)
        point = {name: inputs[name] for name in names}
        push, seeded = compressed.linear_part(function, spec.mode, spec.wrt, spec.of, point)
        own = lax.dynamic_slice_in_dim(
            inputs[offsets], spec.first + start[0], spec.form.width + spec.form.batch
        )
        first = start[0].astype(np.int32)
        values = compressed.block(
            push, seeded, inputs[colors], inputs[places], own, first, spec.form, dtype_of(spec.dtype)
        )
        return [values]

    return run, (*names, colors, places, offsets), ()


def arguments_of(spec: Spec) -> Arguments:
    """Return the types of all inputs of a kernel, those that say which values it computes included."""
    if not isinstance(spec, CompressedSpec):
        return spec.arguments
    further = spec.substituting.structure if spec.substituting else ()
    return (*spec.arguments, *spec.structure, *further)


def _measured(compiled: Any, estimated: Cost) -> Cost:
    """Replace the estimated memory by XLA's own accounting where it has one."""
    memory = compiled.memory_analysis()
    total = estimated.memory_bytes
    if memory is not None:
        total = int(memory.temp_size_in_bytes + memory.output_size_in_bytes)
    return Cost(estimated.flops, total, estimated.bounded)
