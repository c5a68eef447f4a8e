"""What a worker can be asked, and what it answers: one method and one frozen request for each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from gradwire_engine.jaxprs.cost import Cost
from gradwire_engine.planning.kernels import Spec
from gradwire_engine.planning.plan import Plan, Problem
from gradwire_engine.planning.structure import Structure
from gradwire_engine.planning.transforms import Transform
from gradwire_engine.values import Block, Choices, Signature
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue

Array = np.ndarray[Any, Any]
SharedInputs = Mapping[str, "Array | SharedValue"]
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol):
    """A process that computes, one call at a time, in the order in which calls are made.

    Every call raises `WorkerLost` when the process dies, `DataLost` when a node took data with it that the
    call needs, and otherwise whatever the computation raised.
    """

    @property
    def name(self) -> str:
        """The name in results and logs."""

    async def register(self, request: RegisterRequest) -> RegisteredGraph:
        """Parse and check a graph."""

    async def signature(self, request: SignatureRequest) -> Signature:
        """Derive the signature of a transformed function."""

    async def plan(self, request: PlanRequest) -> Planned:
        """Plan a derivative; its kernels are compiled in passing."""

    async def compile(self, request: CompileRequest) -> Compiled:
        """Trace and compile a kernel, for all workers of this device kind."""

    async def evaluate(self, request: EvaluateRequest) -> Computed:
        """Run an evaluation."""

    async def block(self, request: BlockRequest) -> Computed:
        """Compute one block of a derivative: one row-major matrix for each piece."""

    async def batch(self, request: BatchRequest) -> Computed:
        """Run an evaluation of which some inputs are those of a point, as other batches have them too."""

    def kill(self) -> None:
        """End the process, whatever it does; no error if it is gone."""


class WorkerRequest(Protocol[R_co]):
    """One call to a worker, not yet made."""

    @property
    def name(self) -> str:
        """The name of the call in messages and logs."""

    @property
    def pipelined(self) -> bool:
        """Whether it may be queued at a worker behind another pipelined one: many short calls are."""

    async def send(self, worker: Worker) -> R_co:
        """Make the call."""


@dataclass(frozen=True)
class RegisterRequest:
    """Parse a graph from `data`, which is ONNX's textual form if `text`, else serialized.

    `choices` says what to make of it, and `graph_id` is what it is called; its fingerprint by default.
    """

    name: ClassVar[str] = "register"
    pipelined: ClassVar[bool] = False
    data: SharedValue
    text: bool
    choices: Choices | None = None
    graph_id: str = ""

    async def send(self, worker: Worker) -> RegisteredGraph:
        """Make the call."""
        return await worker.register(self)


@dataclass(frozen=True)
class SignatureRequest:
    """Derive a signature after transforms. Each may double the inputs, so that it takes a worker."""

    name: ClassVar[str] = "signature"
    pipelined: ClassVar[bool] = False
    signature: Signature
    transforms: tuple[Transform, ...]

    async def send(self, worker: Worker) -> Signature:
        """Make the call."""
        return await worker.signature(self)


@dataclass(frozen=True)
class PlanRequest:
    """Plan a derivative of a function of `graph`; `known` holds the inputs that `problem.known` names."""

    name: ClassVar[str] = "plan"
    pipelined: ClassVar[bool] = False
    graph: RegisteredGraph
    problem: Problem
    known: SharedInputs

    async def send(self, worker: Worker) -> Planned:
        """Make the call."""
        return await worker.plan(self)


@dataclass(frozen=True)
class CompileRequest:
    """Compile a kernel of `graph`."""

    name: ClassVar[str] = "compile"
    pipelined: ClassVar[bool] = False
    graph: RegisteredGraph
    spec: Spec

    async def send(self, worker: Worker) -> Compiled:
        """Make the call."""
        return await worker.compile(self)


@dataclass(frozen=True)
class LoadableKernel:
    """A compiled kernel and the graph whose weights it takes; a worker loads both once.

    Attributes:
        graph: the registered graph.
        executable: the compiled kernel, whose key names it on workers too.
    """

    graph: RegisteredGraph
    executable: Executable

    @property
    def key(self) -> str:
        """Names the kernel."""
        return self.executable.data.key


@dataclass(frozen=True)
class Point:
    """SharedInputs that many calls of one request have in common; a worker places them on its device once.

    Attributes:
        key: names the point; never given to another.
        inputs: its arrays, by name.
    """

    key: str
    inputs: Mapping[str, SharedValue]


@dataclass(frozen=True)
class EvaluateRequest:
    """Run a kernel that evaluates, at inputs that are used once."""

    name: ClassVar[str] = "evaluate"
    pipelined: ClassVar[bool] = False
    kernel: LoadableKernel
    inputs: SharedInputs

    async def send(self, worker: Worker) -> Computed:
        """Make the call."""
        return await worker.evaluate(self)


@dataclass(frozen=True)
class BlockRequest:
    """Compute a block of a derivative at a point."""

    name: ClassVar[str] = "block"
    pipelined: ClassVar[bool] = True
    kernel: LoadableKernel
    point: Point
    block: Block

    async def send(self, worker: Worker) -> Computed:
        """Make the call."""
        return await worker.block(self)


@dataclass(frozen=True)
class BatchRequest:
    """Run a kernel that evaluates, at the inputs of a point together with those of one batch."""

    name: ClassVar[str] = "batch"
    pipelined: ClassVar[bool] = True
    kernel: LoadableKernel
    point: Point
    inputs: SharedInputs

    async def send(self, worker: Worker) -> Computed:
        """Make the call."""
        return await worker.batch(self)


@dataclass(frozen=True)
class KernelFacts:
    """What the server needs to know of a kernel to decide where it runs.

    Attributes:
        device: fingerprint of the device kind that can load it.
        cost: operations and bytes of one run.
        output_names: of an evaluation, in order; empty for a kernel of blocks.
        seconds: what tracing and compiling it took.
        trial: seconds of a run, measured where it could be stopped; infinite for a kernel too large to try.
    """

    device: str
    cost: Cost
    output_names: tuple[str, ...]
    seconds: float
    trial: float


@dataclass(frozen=True)
class Executable:
    """A compiled kernel as the server holds it; `data` is what `Kernel.serialize` gave."""

    spec: Spec
    facts: KernelFacts
    data: SharedValue


@dataclass(frozen=True)
class Compiled:
    """A compiled kernel as a worker answers it."""

    spec: Spec
    facts: KernelFacts
    executable: bytes


@dataclass(frozen=True)
class Planned:
    """A plan, the structure of a sparse derivative, and the kernels that were compiled to make both."""

    plan: Plan
    structure: Structure | None
    kernels: tuple[Compiled, ...]


@dataclass(frozen=True)
class Computed:
    """Arrays, and the seconds that computing them took."""

    arrays: tuple[Array, ...]
    seconds: float
