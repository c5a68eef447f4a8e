"""NumPy's rules for casting and broadcasting, for arrays of which only shape and dtype are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.graphs.nodes import Shape
from gradwire.graphs.sizes import surely_equal


def check_cast(source: Any, target: Any, casting: Any) -> None:
    """Check a cast against one of NumPy's rules ("no", "equiv", "safe", "same_kind", "unsafe").

    Raises:
        TypeError: the rule does not allow it.
    """
    if not np.can_cast(source, target, casting):
        raise TypeError(f"cannot cast from {source} to {target} according to the rule {casting!r}")


def check_operands(ufunc: np.ufunc, kinds: Sequence[Any], dtype: Any, casting: Any) -> None:
    """Check that operands may be cast to the dtype that is asked for; numbers of Python always may.

    Args:
        ufunc: what is called.
        kinds: the dtype of each operand; a type for a number of Python.
        dtype: what they are cast to.
        casting: NumPy's rule.

    Raises:
        TypeError: the rule does not allow it.
    """
    for kind in kinds:
        if not isinstance(kind, type) and not np.can_cast(kind, dtype, casting):
            raise TypeError(
                f"Cannot cast ufunc '{ufunc.__name__}' input from {kind} to {np.dtype(dtype)} "
                f"with casting rule '{casting}'"
            )


def fits(shape: Shape, target: Shape) -> bool:
    """Whether a shape broadcasts to another."""
    ends = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(
        surely_equal(side, 1) or surely_equal(side, extent) or side == extent for side, extent in ends
    )
