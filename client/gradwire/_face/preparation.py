"""Sparse derivatives whose pattern, coloring and kernels are fixed once, for many points."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradwire._face.differentiation import DerivativeFunction
from gradwire._face.evaluation import Arrays, one_output
from gradwire._face.options import HessianMode, JacobianMode, Kind, Mode, Options
from gradwire._face.structures import Choice
from gradwire.graphs.signature import Selection
from gradwire.results import Plan
from gradwire.sparse import Array, Colors, SparsityPattern


class AsyncPrepared:
    """A sparse derivative of a function for one set of shapes: its pattern and its coloring are known.

    Made by `prepare_jacobian` and `prepare_hessian`. Calling it at a point gives a matrix that shares its
    index arrays with those of other points, so that only values travel and only values are new.
    """

    def __init__(
        self,
        function: DerivativeFunction,
        kind: Kind,
        plan: Plan,
        pattern: SparsityPattern,
        colors: Colors,
        rows: Choice,
        columns: Choice,
        options: Options,
    ) -> None:
        self._function, self._kind, self._options = function, kind, options
        self._rows, self._columns = rows, columns
        self._plan, self._pattern, self._colors = plan, pattern, colors

    @property
    def plan(self) -> Plan:
        """How it is computed; `plan.sparse` tells of the coloring."""
        return self._plan

    @property
    def pattern(self) -> SparsityPattern:
        """Where the derivative may be non-zero, all outputs by all inputs."""
        return self._pattern

    @property
    def colors(self) -> int:
        """How many seeds a matrix takes."""
        assert self._plan.sparse is not None
        return self._plan.sparse.column_colors + self._plan.sparse.row_colors

    @property
    def column_colors(self) -> Array | None:
        """The color of each column, int32 from 0 on, -1 for those that need no seed.

        None where all seeds are of rows.
        """
        return self._colors.columns

    @property
    def row_colors(self) -> Array | None:
        """The color of each row, int32 from 0 on, -1 for those that need no seed.

        None where all seeds are of columns.
        """
        return self._colors.rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pattern to a file; `gw.load_pattern` reads it."""
        self._pattern.save(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind} of {self._function!r}: {self._plan.sparse}>"

    async def __call__(self, /, *args: Any, timeout: float | None = None, **inputs: Any) -> Arrays:
        """Compute the derivative at a point: a matrix, or one for each pair of several inputs and outputs.

        Args:
            *args: the point.
            timeout: seconds until the work is stopped with `DeadlineError`.
            **inputs: inputs by name.

        Raises:
            InvalidArgumentError: an input does not fit.
            DeadlineError: the timeout is over.
        """
        options = self._options.within(timeout)
        request = await self._function._request(self._kind, args, inputs, options)
        parts, _ = await self._function._receive(request, options)
        return self._function._nested(parts, self._rows, self._columns, request, options)


class SparseFunction(DerivativeFunction):
    """A function whose patterns are asked for, and whose sparse derivatives are prepared."""

    async def sparsity(
        self,
        /,
        *args: Any,
        kind: Kind = "jacobian",
        wrt: Selection = None,
        of: Selection = None,
        mode: Mode | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> SparsityPattern:
        """Find where a derivative may be non-zero, for inputs of these shapes and at every point.

        Inputs may be given as `gw.spec(...)`, and left out where the signature fixes them. The other
        arguments are those of `jacobian` or `hessian`, as `kind` says.
        """
        options, _, _ = self._sparse(kind, wrt, of, mode, timeout)
        _, pattern, _ = await self._pattern(kind, args, inputs, options)
        return pattern

    async def prepare_jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: JacobianMode | None = None,
        joined: bool = False,
        pattern: Any = None,
        verify_pattern: bool = True,
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncPrepared:
        """Fix pattern, coloring and kernels of a sparse Jacobian, for many points of the same shapes.

        Inputs may be given as `gw.spec(...)`, and left out where the signature fixes them. The other
        arguments are those of `jacobian`.

        Args:
            *args: the point, or its shapes.
            wrt, of, mode, joined, timeout: as of `jacobian`.
            pattern: a pattern of one's own, as `sparse=` of `jacobian` takes it; found if it is None.
            verify_pattern: compare it, at its first use, by a product with a random vector.
            **inputs: inputs by name.
        """
        options, rows, columns = self._sparse("jacobian", wrt, of, mode, timeout)
        options = replace(options.by(pattern), joined=joined, verify_pattern=verify_pattern)
        return await self._prepare("jacobian", args, inputs, options, rows, columns)

    async def prepare_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        joined: bool = False,
        triangle: bool = False,
        pattern: Any = None,
        verify_pattern: bool = True,
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncPrepared:
        """Fix pattern, coloring and kernels of a sparse Hessian.

        The arguments are those of `hessian` and of `prepare_jacobian`; one triangle of a pattern stands for
        both.
        """
        options, rows, columns = self._sparse("hessian", wrt, of, mode, timeout)
        options = replace(
            options.by(pattern), joined=joined, triangle=triangle, verify_pattern=verify_pattern
        )
        return await self._prepare("hessian", args, inputs, options, rows, columns)

    async def _prepare(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        options: Options,
        rows: Choice,
        columns: Choice,
    ) -> AsyncPrepared:
        plan, pattern, colors = await self._pattern(kind, args, inputs, options, colored=True)
        assert colors is not None
        return AsyncPrepared(self, kind, plan, pattern, colors, rows, columns, options)

    def _sparse(
        self, kind: Kind, wrt: Selection, of: Selection, mode: Mode | None, timeout: float | None
    ) -> tuple[Options, Choice, Choice]:
        """Return the options of a sparse derivative, and what its rows and columns are chosen from."""
        columns = self._columns(wrt)
        rows = self._rows(of) if kind == "jacobian" else columns
        options = Options(
            wrt=columns.selection,
            of=rows.selection if kind == "jacobian" else self._scalar(one_output(of)),
            mode=mode,
            sparse=True,
            timeout=timeout,
        )
        return options, rows, columns
