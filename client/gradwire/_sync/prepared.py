# Generated from _face/preparation.py
# by `python scripts/generate_sync.py`: do not edit.
"""The synchronous prepared derivative."""

import os
from typing import Any

from gradwire._face.evaluation import Arrays
from gradwire._sync.bases import PreparedBase
from gradwire.results import Plan
from gradwire.sparse import Array, SparsityPattern


class Prepared(PreparedBase):
    """A sparse derivative of a function for one set of shapes: its pattern and its coloring are known.

    Made by `prepare_jacobian` and `prepare_hessian`. Calling it at a point gives a matrix that shares its
    index arrays with those of other points, so that only values travel and only values are new.
    """

    @property
    def plan(self) -> Plan:
        """How it is computed; `plan.sparse` tells of the coloring."""
        return self._prepared.plan

    @property
    def pattern(self) -> SparsityPattern:
        """Where the derivative may be non-zero, all outputs by all inputs."""
        return self._prepared.pattern

    @property
    def colors(self) -> int:
        """How many seeds a matrix takes."""
        return self._prepared.colors

    @property
    def column_colors(self) -> Array | None:
        """The color of each column, int32 from 0 on, -1 for those that need no seed.

        None where all seeds are of rows.
        """
        return self._prepared.column_colors

    @property
    def row_colors(self) -> Array | None:
        """The color of each row, int32 from 0 on, -1 for those that need no seed.

        None where all seeds are of columns.
        """
        return self._prepared.row_colors

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pattern to a file; `gw.load_pattern` reads it."""
        return self._prepared.save(path)

    def __call__(self, /, *args: Any, timeout: float | None = None, **inputs: Any) -> Arrays:
        """Compute the derivative at a point: a matrix, or one for each pair of several inputs and outputs.

        Args:
            *args: the point.
            timeout: seconds until the work is stopped with `DeadlineError`.
            **inputs: inputs by name.

        Raises:
            InvalidArgumentError: an input does not fit.
            DeadlineError: the timeout is over.
        """
        return self._bridge.run(self._prepared.__call__(*args, timeout=timeout, **inputs))
