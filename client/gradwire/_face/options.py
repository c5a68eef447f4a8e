"""The options of evaluations and derivatives: their types, and one frozen value that holds those of a call.

Inputs may be given by name beside the options (`f.jacobian(x=x, wrt="x")`), and a `TypedDict` for `**kwargs`
cannot say "these keys, and any other": the methods that take inputs by name spell their options out, gather
them into `Options` at once and pass that on. The one-liners of the client take no inputs by name; they are
typed with the `TypedDict`s. A test holds the two to each other.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, get_args

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection
from gradwire.progress import Progress
from gradwire.results import Block
from gradwire.sparse import Array, coordinates_of
from gradwire.transport.retry import seconds_of
from gradwire_wire.kinds import MODES, SPARSITIES
from gradwire_wire.v1 import derivative_pb2

Kind = Literal["jacobian", "hessian"]
JacobianMode = Literal["forward", "reverse"]
HessianMode = Literal["forward_over_reverse", "forward_over_forward"]
Mode = JacobianMode | HessianMode
Rounding = Literal["straight_through"]

ProgressOption = bool | Callable[[Progress], object]
"""False for silence, True for a bar, or a function that is called as data arrive."""

SparseOption = Any
"""Whether a derivative is sparse: True, False, "auto" for whichever takes less work, or a pattern.

A pattern is a `SparsityPattern`, a SciPy sparse matrix, a boolean array, or a pair of rows and columns.
"""

FoundSparsity = bool | Literal["auto"]
"""`SparseOption` where no pattern is taken: each is found."""

Sink = Callable[[Block], object]
"""Takes blocks as they arrive; the next one is read when it returns (or when what it returns is awaited)."""

_MODES: dict[Kind, tuple[str, ...]] = {
    "jacobian": get_args(JacobianMode),
    "hessian": get_args(HessianMode),
}


class ProductOptions(TypedDict, total=False):
    """The options of `value`, `jvp` and `vjp`, documented there."""

    wrt: Selection
    of: Selection
    batched: Selection
    timeout: float | None


class GradientOptions(TypedDict, total=False):
    """The options of `grad` and `hvp`, which are of one output."""

    wrt: Selection
    of: str | int | None
    batched: Selection
    timeout: float | None


class JacobianOptions(TypedDict, total=False):
    """The options of `jacobian`, documented there."""

    wrt: Selection
    of: Selection
    mode: JacobianMode | None
    block_width: int | None
    block_memory: int | None
    sparse: SparseOption
    joined: bool
    batched: Selection
    out: Any
    sink: Sink | None
    progress: ProgressOption
    timeout: float | None
    return_info: bool


class HessianOptions(TypedDict, total=False):
    """The options of `hessian`: those of `jacobian`, of one output and with modes of its own."""

    wrt: Selection
    of: str | int | None
    mode: HessianMode | None
    block_width: int | None
    block_memory: int | None
    sparse: SparseOption
    joined: bool
    batched: Selection
    triangle: bool
    out: Any
    sink: Sink | None
    progress: ProgressOption
    timeout: float | None
    return_info: bool


OPTION_NAMES = frozenset(
    {"kind", "return_info", "reduction", "rows"}.union(
        *(kind.__annotations__ for kind in (ProductOptions, GradientOptions, JacobianOptions, HessianOptions))
    )
)
"""The names of all options, of any call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one derivative, as its method documents them; None leaves a choice to the server."""

    wrt: Selection = None
    of: Selection = None
    mode: Mode | None = None
    block_width: int | None = None
    block_memory: int | None = None
    sparse: SparseOption = False
    joined: bool = False
    triangle: bool = False
    verify_pattern: bool = True
    batched: Selection = None
    out: Any = None
    sink: Sink | None = None
    progress: ProgressOption = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        self._check_sparse()
        if self.out is not None and self.sink is not None:
            raise InvalidArgumentError("out= and sink= both say where blocks go: pass one of them")
        if self.sink is not None and not callable(self.sink):
            raise InvalidArgumentError(f"sink is a function of a block, or None, not {self.sink!r}")
        if not (callable(self.progress) or isinstance(self.progress, bool)):
            raise InvalidArgumentError(
                f"progress is True for a bar, False, or a function of a Progress, not {self.progress!r}"
            )
        seconds_of(self.timeout)

    def by(self, pattern: Any) -> "Options":
        """Return the same options with a pattern that is given, if it is."""
        return self if pattern is None else replace(self, sparse=pattern)

    def within(self, timeout: float | None) -> "Options":
        """Return the same options with another timeout."""
        return replace(self, timeout=timeout)

    def plan_options(self, kind: Kind) -> derivative_pb2.PlanOptions:
        """Return the message for the options that decide the plan.

        Raises:
            InvalidArgumentError: the mode is not one of this kind, or a width or memory is not a positive
                integer.
        """
        modes = _MODES[kind]
        if self.mode is not None and self.mode not in modes:
            raise InvalidArgumentError(f"mode of a {kind} is {modes[0]!r} or {modes[1]!r}, not {self.mode!r}")
        return derivative_pb2.PlanOptions(
            mode=MODES[self.mode or ""],
            block_memory_bytes=_positive("block_memory", self.block_memory),
            block_width=_positive("block_width", self.block_width),
            sparsity=SPARSITIES[self._sparsity],
            triangle=self.triangle,
            pattern_trusted=not self.verify_pattern,
        )

    @property
    def is_sparse(self) -> bool:
        """Whether the result may be sparse."""
        return self._sparsity != "dense"

    @property
    def _sparsity(self) -> str:
        if isinstance(self.sparse, bool):
            return "sparse" if self.sparse else "dense"
        return "auto" if isinstance(self.sparse, str) else "sparse"

    @property
    def pattern(self) -> tuple[Array, Array] | None:
        """The coordinates of a pattern that is given."""
        return None if isinstance(self.sparse, bool | str) else coordinates_of(self.sparse)

    def _check_sparse(self) -> None:
        if isinstance(self.sparse, str) and self.sparse != "auto":
            raise InvalidArgumentError(f"sparse is True, False, 'auto' or a pattern, not {self.sparse!r}")
        if self.pattern is None and not self.verify_pattern:
            raise InvalidArgumentError("verify_pattern=False is of a pattern that is given as sparse=")
        if self.batched is not None and self.is_sparse:
            raise InvalidArgumentError(
                "the derivatives of a batch are dense, one for each sample: leave sparse= out"
            )
        if self.triangle and self._sparsity == "auto":
            raise InvalidArgumentError("triangle= is of sparse Hessians, and 'auto' may give a dense one")
        for name in ("joined", "triangle"):
            if getattr(self, name) and not self.is_sparse:
                raise InvalidArgumentError(f"{name}= is of sparse derivatives: pass sparse=True too")
        if self.is_sparse and (self.out is not None or self.sink is not None):
            given = "out=" if self.out is not None else "sink="
            raise InvalidArgumentError(
                f"{given} takes dense blocks: a sparse derivative is returned as a matrix; ask for it dense"
            )


def found_sparsity(sparse: FoundSparsity) -> FoundSparsity:
    """Return the option where no pattern is taken.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if not (isinstance(sparse, bool) or (isinstance(sparse, str) and sparse == "auto")):
        raise InvalidArgumentError(
            f"sparse is True, False or 'auto' here, not {type(sparse).__name__} {sparse!r}; a pattern of "
            "your own is taken by jacobian and hessian of a function on the service"
        )
    return sparse


def _positive(name: str, value: int | None) -> int:
    """Return a positive integer as it travels: 0 leaves the choice to the server."""
    if value is None:
        return 0
    number = operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else 0
    if number <= 0:
        raise InvalidArgumentError(
            f"{name} is a positive whole number, or None to leave it to the server, not {value!r}"
        )
    return number
