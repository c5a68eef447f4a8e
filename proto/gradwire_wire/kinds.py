"""Derivative kinds and differentiation modes: the names that users write, and their numbers on the wire."""

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
KIND_NAMES: Mapping[int, str] = {number: name for name, number in KINDS.items()}
MODE_NAMES: Mapping[int, str] = {number: name for name, number in MODES.items()}
