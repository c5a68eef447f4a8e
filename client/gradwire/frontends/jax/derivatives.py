"""Jacobians and Hessians of JAX functions, computed by the service at given arrays: dense or sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jax.experimental.sparse import BCOO

from gradwire._face.options import FoundSparsity, found_sparsity
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.jax.calling import default, synchronous
from gradwire.frontends.jax.conversion import convert_function
from gradwire.frontends.jax.registry import type_only
from gradwire.frontends.jax.wrapping import JaxFunction

if TYPE_CHECKING:
    from gradwire._face.verification import Verify
    from gradwire._sync.client import Client
    from gradwire._sync.function import Function

Kind = Literal["jacobian", "hessian"]


def jacobian(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sparse: FoundSparsity = False,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian of `fn` on the service, like `jax.jacobian`.

        J = gradwire.jax.jacobian(residuals, sparse=True)(x)  # jax.experimental.sparse.BCOO

    It is called with arrays, outside of `jit`, `grad` and `vmap`: inside of them use
    `jax.jacobian(gradwire.jax.remote(fn))`.

    Args:
        fn: takes arrays or trees of them, and returns the same.
        argnums: the arguments to differentiate with respect to.
        sparse: True gives `BCOO` matrices of shape (output.size, input.size), computed by colors of columns
            or rows that share no entry; "auto" does so where it takes less work.
        client: where to compute; the one given to `use` by default.
        verify: when the graph is compared with the function, as for `client.function`.

    Raises:
        InvalidArgumentError: the options do not fit. The call raises it where arguments are traced or not
            floating-point, `TraceError` where `fn` does something that has no place in a graph, and
            `GradwireError` where no client was named.
    """
    return _Derivative(fn, "jacobian", argnums, sparse, client, verify)


def hessian(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sparse: FoundSparsity = False,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Callable[..., Any]:
    """Return the function that computes the Hessian of `fn` on the service, like `jax.hessian`.

    `fn` returns one number; the arguments and errors are those of `jacobian`.
    """
    return _Derivative(fn, "hessian", argnums, sparse, client, verify)


@dataclass(frozen=True)
class _OnService:
    """A function on the service, and how what it returns is nested."""

    function: Function
    structure: Any


@dataclass(eq=False)
class _Derivative:
    """A derivative of a function; converted once for each client and each set of argument types."""

    fn: Callable[..., Any]
    kind: Kind
    argnums: int | Sequence[int]
    sparse: FoundSparsity
    client: Client | None
    verify: Verify | None
    made: dict[Any, _OnService] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        found_sparsity(self.sparse)
        if isinstance(self.fn, JaxFunction):
            self.fn = self.fn.fn
        if hasattr(self.fn, "as_vjp"):
            raise InvalidArgumentError(
                f"this function is on a server already: call its own {self.kind}(x, sparse=True)"
            )
        if not callable(self.fn):
            raise InvalidArgumentError(f"{self.kind} takes a function of JAX arrays, not {self.fn!r}")

    def __call__(self, *args: Any) -> Any:
        """Compute the derivative at a point."""
        leaves, tree = tree_util.tree_flatten(args)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise InvalidArgumentError(
                f"gradwire.jax.{self.kind} is called with arrays, outside of jit, grad and vmap; inside of "
                f"them use jax.{self.kind}(gradwire.jax.remote(fn)), which is dense"
            )
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        on_service = self._on_service(tree, [type_only(array.shape, array.dtype) for array in arrays])
        function = on_service.function
        inputs = function.signature.inputs
        places, columns = tree_util.tree_flatten(
            self._chosen(tree_util.tree_unflatten(tree, range(len(leaves))))
        )
        for place in places:
            if not inputs[place].floating:
                raise InvalidArgumentError(
                    f"input {inputs[place]} is not floating-point: choose with argnums="
                )
        wrt = [inputs[place].name for place in places]
        point = {value.name: np.asarray(array) for value, array in zip(inputs, arrays, strict=True)}
        if self.kind == "hessian":
            _check_one_number(function)
            found = function.hessian(point, wrt=wrt, sparse=self.sparse)
            nested = [tree_util.tree_unflatten(columns, _nested(found, columns))]
        else:
            of = [value.name for value in function.signature.outputs]
            nested = _nested(function.jacobian(point, wrt=wrt, of=of, sparse=self.sparse), columns)
        return tree_util.tree_unflatten(on_service.structure, nested)

    def _chosen(self, numbered: Sequence[Any]) -> Any:
        """Return the chosen arguments, whose leaves are their numbers."""
        wanted = [self.argnums] if isinstance(self.argnums, int) else list(self.argnums)
        for place in wanted:
            if not -len(numbered) <= place < len(numbered):
                raise InvalidArgumentError(f"argnums names argument {place} of {len(numbered)}")
        chosen = tuple(numbered[place] for place in wanted)
        return chosen[0] if isinstance(self.argnums, int) else chosen

    def _on_service(self, tree: Any, kinds: Sequence[Any]) -> _OnService:
        owner = default.or_given(self.client)
        key = (owner, tree, tuple((kind.shape, kind.dtype) for kind in kinds))
        if key not in self.made:
            converted = convert_function(self.fn, tree_util.tree_unflatten(tree, kinds))
            function = synchronous(owner.function(converted.bound, verify=self.verify))
            self.made[key] = _OnService(function, converted.structure)
        return self.made[key]


def _check_one_number(function: Function) -> None:
    outputs = function.signature.outputs
    if len(outputs) != 1 or outputs[0].shape != ():
        raise InvalidArgumentError(
            f"a Hessian is of one number, of shape (); fn returns {', '.join(map(str, outputs))}"
        )


def _nested(rows: Sequence[Sequence[Any]], columns: Any) -> list[Any]:
    """Return each row of a result as a tree of arrays of JAX."""
    return [tree_util.tree_unflatten(columns, [_result(one) for one in row]) for row in rows]


def _result(found: Any) -> Any:
    """Return an array of JAX, or a sparse matrix as BCOO: by rows where SciPy's CSR gives that order."""
    if isinstance(found, np.ndarray):
        return jnp.asarray(found)
    if hasattr(found, "indptr"):
        rows = np.repeat(np.arange(found.shape[0], dtype=np.int32), np.diff(found.indptr))
        return _bcoo(found.data, rows, found.indices, found.shape, True)
    return _bcoo(found.values, found.rows, found.columns, found.shape, False)


def _bcoo(values: Any, rows: Any, columns: Any, shape: tuple[int, int], by_rows: bool) -> Any:
    places = jnp.asarray(np.stack([rows, columns], axis=1))
    return BCOO((jnp.asarray(values), places), shape=shape, indices_sorted=by_rows, unique_indices=True)
