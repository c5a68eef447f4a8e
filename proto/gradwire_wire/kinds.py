"""Kinds, modes, sparsities and colorings: the names that users write, and their numbers on the wire."""

from collections.abc import Mapping

from gradwire_wire.v1 import derivative_pb2

KINDS: Mapping[str, derivative_pb2.DerivativeKind] = {
    "jacobian": derivative_pb2.DERIVATIVE_KIND_JACOBIAN,
    "hessian": derivative_pb2.DERIVATIVE_KIND_HESSIAN,
}
MODES: Mapping[str, derivative_pb2.Mode] = {
    "": derivative_pb2.MODE_UNSPECIFIED,
    "forward": derivative_pb2.MODE_FORWARD,
    "reverse": derivative_pb2.MODE_REVERSE,
    "forward_over_reverse": derivative_pb2.MODE_FORWARD_OVER_REVERSE,
    "forward_over_forward": derivative_pb2.MODE_FORWARD_OVER_FORWARD,
}
# In plans alone: a request for one mode seeds from one side.
PLANNED_MODES: Mapping[str, derivative_pb2.Mode] = {
    **MODES,
    "bidirectional": derivative_pb2.MODE_BIDIRECTIONAL,
}
SPARSITIES: Mapping[str, derivative_pb2.Sparsity] = {
    "dense": derivative_pb2.SPARSITY_DENSE,
    "sparse": derivative_pb2.SPARSITY_SPARSE,
    "auto": derivative_pb2.SPARSITY_AUTO,
}
COLORINGS: Mapping[str, derivative_pb2.Coloring] = {
    "column": derivative_pb2.COLORING_COLUMN,
    "row": derivative_pb2.COLORING_ROW,
    "bidirectional": derivative_pb2.COLORING_BIDIRECTIONAL,
    "star": derivative_pb2.COLORING_STAR,
    "acyclic": derivative_pb2.COLORING_ACYCLIC,
}
KIND_NAMES: Mapping[int, str] = {number: name for name, number in KINDS.items()}
MODE_NAMES: Mapping[int, str] = {number: name for name, number in MODES.items()}
PLANNED_MODE_NAMES: Mapping[int, str] = {number: name for name, number in PLANNED_MODES.items()}
SPARSITY_NAMES: Mapping[int, str] = {
    derivative_pb2.SPARSITY_UNSPECIFIED: "dense",
    **{number: name for name, number in SPARSITIES.items()},
}
COLORING_NAMES: Mapping[int, str] = {number: name for name, number in COLORINGS.items()}
