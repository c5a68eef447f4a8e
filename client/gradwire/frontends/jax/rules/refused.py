"""Primitives that have no place in a graph, with what to write instead."""

from __future__ import annotations

from typing import NoReturn

from gradwire.frontends.jax.registry import Call, rule
from gradwire.graphs.nodes import GraphValue

_RANDOM = (
    "random numbers would be frozen in the graph; draw the samples outside and pass them in as an argument"
)
_ASYMMETRIC = "it has no operator for matrices that are not symmetric; use jnp.linalg.eigh where that will do"
PYTHON = "a graph cannot call Python; compute it outside and pass the result in as an argument"
_BITS = "the bits of numbers have no place in a graph; use comparisons and arithmetic"
_DEVICES = "a graph says nothing about devices; take the function out of shard_map or pmap"
_WHOLE = "the derivative of pooling is made by the service; pass the function itself, not its jax.grad"

_ADVICE = {
    _RANDOM: (
        "random_bits random_clone random_fold_in random_gamma random_gamma_grad random_seed random_split "
        "random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32"
    ),
    _ASYMMETRIC: "eig schur",
    PYTHON: "io_callback callback ffi_call",
    _BITS: "bitcast_convert_type clz population_count",
    _DEVICES: (
        "all_gather all_to_all axis_index pmax pmin ppermute psum psum_invariant reduce_scatter shard_map "
        "ragged_all_to_all"
    ),
    "it has no derivative; use jax.scipy.special.polygamma where that will do": "igamma_grad_a zeta",
    _WHOLE: "select_and_gather_add select_and_scatter select_and_scatter_add",
    "it has no derivative; sort with jnp.sort, or use jax.lax.top_k": "approx_top_k",
    "give the reduction as jnp.sum, jnp.prod, jnp.max or jnp.min": "reduce reduce_window",
    "factor with jnp.linalg.qr(mode='reduced') instead": "hessenberg tridiagonal",
    "a graph has no memory that is written to; use x.at[i].set(value)": (
        "addupdate empty_ref freeze get new_ref run_state swap"
    ),
    "write the sweep with jax.lax.scan, or use jnp.linalg.solve": "tridiagonal_solve",
    "kernels of one's own have no place in a graph; write the function with jax.numpy": "pallas_call",
}

_BY_NAME = {name: advice for advice, names in _ADVICE.items() for name in names.split()}


@rule(*_BY_NAME)
def refuse(call: Call, *_: GraphValue) -> NoReturn:
    raise call.fail(_BY_NAME[call.name])
