"""Functions with derivative rules of their own have JAX's values and derivatives, also at special points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.ode import odeint
from jax.extend.core import jaxprs_in_params
from jax.scipy import special

import gradwire as gw
from gradwire.frontends.jax import convert, convert_function
from gradwire_engine.errors import NotDifferentiable
from gradwire_engine.planning.plan import PlanOptions, Problem
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.sparse_plan import plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec, Jvp, Vjp
from tests.client.frontends.jax.jax_oracle import agree, jacobians_agree
from tests.engine.in_process import argument_types, assemble, assemble_sparse, evaluate

Function = Callable[..., Any]

RULES = ("custom_jvp_call", "custom_vjp_call")

REGULAR = np.array([0.3, 0.7, 2.0, 5.0])
TINY = 1e-8
SPECIAL = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, 6.0, -2.0, 30.0, -30.0, TINY])
TIES = np.array([0.0, -0.0, 0.5, 1.0, -1.0, 2.0])

# JAX's own loops of these do not end at special points, or its rules fail at parameters that are not fixed.
LOOPS = {"exp1", "expi", "expn", "hyp1f1", "hyp2f1", "poch"}
# Their codes read the bits of numbers, or there is no operator for them.
REFUSED = {"frexp", "zeta"}

KINKS: dict[str, tuple[Function, int]] = {
    "abs": (jnp.abs, 1),
    "clip": (lambda x: jnp.clip(x, 0.0, 1.0), 1),
    "hypot": (jnp.hypot, 2),
    "hard_tanh": (jax.nn.hard_tanh, 1),
    "leaky_relu": (jax.nn.leaky_relu, 1),
    "maximum": (jnp.maximum, 2),
    "sign": (jnp.sign, 1),
    "soft_sign": (jax.nn.soft_sign, 1),
}


def _has_rule(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name in RULES or any(map(_has_rule, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _arguments(fn: Function) -> int:
    """How many arrays a function with a rule of its own takes and maps by elements; 0 if it does not."""
    for count in (1, 2):
        try:
            traced = jax.make_jaxpr(fn)(*[jax.ShapeDtypeStruct((3,), np.float64)] * count)
        except Exception:  # whatever a function says of arguments that it does not take
            continue
        alike = all(getattr(aval, "shape", None) == (3,) for aval in traced.out_avals)
        return count if alike and traced.out_avals and _has_rule(traced.jaxpr) else 0
    return 0


def _found() -> Iterator[tuple[str, Function, int]]:
    for module in (jnp, jax.nn, special, lax):
        for name in sorted(vars(module)):
            fn = getattr(module, name)
            of_jax = str(getattr(fn, "__module__", "")).startswith("jax")
            if callable(fn) and of_jax and not name.startswith("_") and not isinstance(fn, type):
                count = 0 if name in LOOPS | REFUSED else _arguments(fn)
                if count:
                    yield f"{module.__name__}.{name}", fn, count


FOUND = {name: (fn, count) for name, fn, count in _found()} | KINKS


def _grid(count: int) -> list[np.ndarray[Any, Any]]:
    return [SPECIAL] if count == 1 else [axis.ravel() for axis in np.meshgrid(TIES, TIES)]


def _derivatives(fn: Function, point: list[Any]) -> None:
    """Compare the value and the first two derivatives, along ones, of a function that works by elements."""

    def floats(*given: Any) -> list[Any]:
        leaves = [
            [one.real, one.imag] if jnp.iscomplexobj(one) else [one] for one in jax.tree.leaves(fn(*given))
        ]
        return [part for parts in leaves for part in parts if part.dtype == np.float64]

    converted = convert_function(floats, point)
    graph = register(converted.model.SerializeToString())
    outputs = [name for name, _ in graph.info.signature.outputs]
    ones = np.ones_like(point[0])
    inputs = dict(zip(converted.inputs, point, strict=True))
    inputs |= {f"{name}.cotangent": ones for name in outputs} | {
        f"{name}.tangent": ones for name in converted.inputs
    }
    steps = (Vjp(keep_values=True), Jvp(tuple(converted.inputs), keep_values=True))
    found = evaluate(graph, FunctionSpec(graph.info.graph_id, steps), inputs)

    def first(*given: Any) -> Any:
        values, pull = jax.vjp(floats, *given)
        return pull([jnp.ones_like(value) for value in values]), values

    @jax.jit
    def wanted(*given: Any) -> dict[str, Any]:
        (slopes, values), (curvatures, _) = jax.jvp(first, given, tuple(jnp.ones_like(one) for one in given))
        names = list(converted.inputs)
        return {
            **dict(zip(outputs, values, strict=True)),
            **{f"{name}.cotangent": one for name, one in zip(names, slopes, strict=True)},
            **{f"{name}.cotangent.tangent": one for name, one in zip(names, curvatures, strict=True)},
        }

    for name, want in wanted(*point).items():
        expected = np.asarray(want)
        known = ~np.isnan(expected)  # where JAX has no derivative, a graph may have one
        np.testing.assert_allclose(found[name][known], expected[known], rtol=1e-9, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", FOUND)
def test_functions_with_rules_have_jaxs_derivatives_at_special_points(name: str) -> None:
    fn, count = FOUND[name]
    point = _grid(count)
    if name == "jax.numpy.sinc":
        # There it subtracts numbers of size 1e16: JAX's second derivative has no correct digit.
        point = [axis[axis != TINY] for axis in point]
    _derivatives(fn, point)


@pytest.mark.parametrize(
    ("fn", "point"),
    [
        (special.expi, REGULAR),
        (lambda x: special.poch(2.0, x), REGULAR),
        (lambda x: special.hyp1f1(1.0, 2.5, x), REGULAR),
    ],
)
def test_functions_of_series_have_jaxs_derivatives_at_regular_points(fn: Function, point: Any) -> None:
    _derivatives(fn, [point])


def test_the_walk_finds_the_functions_that_are_known_to_have_rules() -> None:
    found = {name.rpartition(".")[2] for name in FOUND}
    assert {"relu", "relu6", "xlogy", "xlog1py", "entr", "dawsn", "sici", "fresnel", "owens_t", "i0"} <= found


def _cube_root(a: Any) -> Any:
    def newton(f: Any, start: Any) -> Any:
        return lax.fori_loop(0, 30, lambda _, x: x - f(x) / (3 * x * x), start)

    return lax.custom_root(lambda x: x**3 - a, jnp.ones_like(a), newton, lambda g, y: y / g(1.0))


def _fixed_point(a: Any) -> Any:
    """The x with x = cos(a x), found without looking at derivatives."""

    def iterated(f: Any, start: Any) -> Any:
        return lax.while_loop(lambda x: jnp.abs(f(x)) > 1e-15, lambda x: x + f(x), start)

    return lax.custom_root(lambda x: jnp.cos(a * x) - x, a * 0 + 0.5, iterated, lambda g, y: y / g(1.0))


def _by_conjugate_gradients(a: Any) -> Any:
    matrix = a @ a.T + jnp.eye(3)
    return lax.custom_linear_solve(
        lambda x: matrix @ x, a[0], lambda f, b: jax.scipy.sparse.linalg.cg(f, b)[0], symmetric=True
    )


RNG = np.random.default_rng(0)

WHOLE: dict[str, tuple[Function, Any]] = {
    "custom_root": (_cube_root, np.asarray(2.0)),
    "second derivative of custom_root": (jax.grad(_cube_root), np.asarray(2.0)),
    "fixed point": (_fixed_point, np.asarray(0.7)),
    "custom_linear_solve": (_by_conjugate_gradients, RNG.normal(size=(3, 3))),
    "pinv of a tall matrix": (jnp.linalg.pinv, RNG.normal(size=(4, 3))),
    "pinv of a singular matrix": (jnp.linalg.pinv, np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 2.0])),
    "softmax": (jax.nn.softmax, np.array([0.0, 0.0, 90.0])),
    "a function in a loop": (
        lambda x: lax.scan(lambda c, r: (special.dawsn(c + r), c), 0.1, x)[0],
        REGULAR,
    ),
    "a function under vmap": (jax.vmap(lambda x: special.sici(x)[0]), REGULAR),
}


@pytest.mark.parametrize("name", WHOLE)
def test_implicit_functions_have_jaxs_jacobian(name: str) -> None:
    fn, point = WHOLE[name]
    agree(fn, point, rtol=1e-10)
    jacobians_agree(fn, point, rtol=1e-8)


def _pulled(fn: Function, *point: Any, steps: tuple[Any, ...] = (Vjp(),), **vectors: Any) -> list[Any]:
    converted = convert_function(fn, point)
    graph = register(converted.model.SerializeToString())
    inputs = dict(zip(converted.inputs, map(np.asarray, point), strict=True)) | vectors
    return list(evaluate(graph, FunctionSpec(graph.info.graph_id, steps), inputs).values())


def test_an_ode_is_differentiated_by_its_state_its_parameter_and_its_times() -> None:
    def solved(y: Any, rate: Any, end: Any) -> Any:
        return odeint(lambda y, t: -rate * y * t, y, jnp.array([0.0, 0.5, 1.0]) * end, rtol=1e-9, atol=1e-9)[
            -1
        ]

    point = np.array([1.0, 2.0]), np.asarray(0.7), np.asarray(1.3)
    cotangent = np.array([1.0, -0.3])
    found = _pulled(solved, *point, **{"out.cotangent": cotangent})
    wanted = jax.vjp(solved, *point)[1](cotangent)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9)
    with pytest.raises(NotDifferentiable, match=r"forward mode is not possible.*reverse rule alone"):
        _pulled(solved, *point, steps=(Jvp(("end",)),), **{"end.tangent": np.asarray(1.0)})


@jax.custom_jvp
def _slanted(x: Any, slope: Any) -> Any:
    """A rule that is not the derivative: what is asked for shows which of them was used."""
    return jnp.sin(x) + 0 * slope


_slanted.defjvp(lambda primals, tangents: (_slanted(*primals), primals[1] * primals[0] * tangents[0]))


@jax.custom_vjp
def _scaled_back(x: Any) -> Any:
    return x**2


_scaled_back.defvjp(lambda x: (x**2, x), lambda x, cotangent: (7 * x * cotangent,))


@jax.custom_vjp
def _clipped_back(x: Any) -> Any:
    return 2 * x


_clipped_back.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (jnp.clip(cotangent, -1, 1),))


def test_a_users_own_rule_is_the_derivative_of_every_order() -> None:
    agree(lambda x: _slanted(x, 3.0), REGULAR)
    jacobians_agree(lambda x: _slanted(x, 3.0), REGULAR)
    jacobians_agree(_slanted, REGULAR, 2 * REGULAR)
    _derivatives(lambda x: _slanted(x, 3.0) ** 2, [REGULAR])


def test_a_users_own_reverse_rule_gives_both_modes_where_it_is_linear() -> None:
    tangent = np.ones(4)
    (back,) = _pulled(_scaled_back, REGULAR, **{"y.cotangent": tangent})
    (along,) = _pulled(_scaled_back, REGULAR, steps=(Jvp(),), **{"x.tangent": tangent})
    np.testing.assert_allclose([back, along], [7 * REGULAR] * 2)


def test_a_reverse_rule_that_is_not_linear_is_used_in_reverse_mode_alone() -> None:
    cotangent = np.array([0.5, 3.0, -2.0, 1.0])
    (back,) = _pulled(_clipped_back, REGULAR, **{"y.cotangent": cotangent})
    np.testing.assert_array_equal(back, np.clip(cotangent, -1, 1))
    with pytest.raises(NotDifferentiable, match=r"_clipped_back has a reverse rule alone.*use reverse mode"):
        _pulled(_clipped_back, REGULAR, steps=(Jvp(),), **{"x.tangent": cotangent})


def test_orders_beyond_those_in_the_graph_are_refused() -> None:
    steps = (Jvp(("x",)),) * 4
    vectors = {f"x.tangent{suffix}": np.ones(4) for suffix in ("", ".2", ".3", ".4")}
    _pulled(special.dawsn, REGULAR, steps=steps[:3], **{k: vectors[k] for k in list(vectors)[:3]})
    with pytest.raises(NotDifferentiable, match="dawsn has no derivative of this order"):
        _pulled(special.dawsn, REGULAR, steps=steps, **vectors)


def test_a_rule_that_needs_values_of_a_function_around_it_is_refused_when_it_is_asked_for() -> None:
    (slope,) = _pulled(special.exp1, REGULAR, steps=(Jvp(),), **{"x.tangent": np.ones(4)})
    np.testing.assert_allclose(slope, -np.exp(-REGULAR) / REGULAR, rtol=1e-10)
    with pytest.raises(NotDifferentiable, match="no derivative of this order"):
        vectors = {"x.tangent": np.ones(4), "x.tangent.2": np.ones(4)}
        _pulled(special.exp1, REGULAR, steps=(Jvp(("x",)),) * 2, **vectors)


def test_rules_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", gw.GraphWarning)
        convert(lambda x: special.dawsn(_slanted(x, 2.0)), [gw.spec(3)])


def test_neighbors_of_numbers_are_exact() -> None:
    for dtype in (np.float64, np.float32):
        kind = np.finfo(dtype)
        exponents = np.arange(kind.minexp + 1, kind.maxexp - 1, 7)
        x = np.ldexp(RNG.uniform(1, 2, len(exponents)), exponents).astype(dtype)
        x = np.concatenate([x, -x, np.ldexp(dtype(1), exponents), [0, kind.max, np.inf, -np.inf, np.nan]])
        y = np.where(np.arange(len(x)) % 2, np.inf, -np.inf).astype(dtype)
        (found,) = _pulled(jnp.nextafter, x.astype(dtype), y, steps=())
        with np.errstate(over="ignore", under="ignore"):
            np.testing.assert_array_equal(found, np.nextafter(x.astype(dtype), y))


@jax.custom_jvp
def _turning(x: Any) -> Any:
    """A rule whose "gradient" (2 x1, x0) is that of no function: its second derivatives are not symmetric."""
    return x[0] * x[1]


_turning.defjvp(
    lambda primals, tangents: (
        _turning(*primals),
        2 * primals[0][1] * tangents[0][0] + primals[0][0] * tangents[0][1],
    )
)


@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("sparsity", ["dense", "sparse", "batched"])
def test_second_derivatives_that_are_not_symmetric_are_jaxs(width: int, sparsity: str) -> None:
    def energy(x: Any, y: Any) -> Any:
        return _turning(x) * y[0] + x[2] ** 3

    point = [np.array([1.0, 2.0, 3.0]), np.array([0.5, 4.0])]
    model = convert_function(energy, point).model
    graph = register(model.SerializeToString())
    names = [name for name, _ in graph.info.signature.inputs]
    inputs = dict(zip(names, point, strict=True))
    batched = (names[0],) if sparsity == "batched" else ()
    if batched:
        inputs[names[0]] = np.stack([point[0], 2 * point[0]])
    problem = Problem(
        FunctionSpec(graph.info.graph_id),
        argument_types(inputs),
        "hessian",
        options=PlanOptions(block_width=width, sparsity=sparsity if not batched else "dense"),
        batched=batched,
    )
    planned = plan_derivative(graph, problem)
    expected = jax.hessian(energy, (0, 1))(*point)
    blocks = [[np.asarray(part) for part in row] for row in expected]
    assert not np.array_equal(blocks[0][0], blocks[0][0].T)
    if sparsity == "sparse":
        np.testing.assert_allclose(assemble_sparse(graph, planned, inputs), np.block(blocks), rtol=1e-14)
        return
    found = assemble(graph, planned.plan, inputs)
    for got, want in zip(found, [part for row in blocks for part in row], strict=True):
        np.testing.assert_allclose(got[0] if batched else got, want, rtol=1e-14)
