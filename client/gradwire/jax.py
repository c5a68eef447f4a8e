"""JAX functions on the service, and the service's functions in JAX. Install with "gradwire[jax]".

For example:

    import gradwire.jax

    f = client.function(jax.jit(fn), gw.spec(3))          # functions under jax.jit are known by their type
    f = client.function(gradwire.jax.wrap(fn), gw.spec(3))  # any other is marked by wrap

    gradwire.jax.use(client)
    f = gradwire.jax.function(fn, params, x)              # arguments may be trees: params is a dict
    g = gradwire.jax.remote(fn)                           # a function of JAX, computed by the service:
    jax.jit(jax.grad(lambda x: jnp.sum(g(x) ** 2)))(x)    # under jit, grad, jvp, vjp and vmap
    J = gradwire.jax.jacobian(fn, sparse=True)(x)         # a sparse matrix, BCOO
"""

from gradwire.frontends.jax import (
    Converted,
    JaxFunction,
    Remote,
    convert,
    convert_function,
    function,
    hessian,
    jacobian,
    remote,
    use,
    wrap,
)

__all__ = [
    "Converted",
    "JaxFunction",
    "Remote",
    "convert",
    "convert_function",
    "function",
    "hessian",
    "jacobian",
    "remote",
    "use",
    "wrap",
]
