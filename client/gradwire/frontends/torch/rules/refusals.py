"""ATen operators that have no place in a graph, with what to write instead."""

from gradwire.frontends.torch.lowering import refused

refused(
    "it draws random numbers: draw them outside and pass them in (module.eval() turns dropout off), or give "
    "gradwire.torch.function a seed=",
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
    "uniform", "exponential", "multinomial", "poisson", "native_dropout", "random", "cauchy", "log_normal",
    "geometric", "normal_functional", "_sample_dirichlet", "_standard_gamma", "binomial",
)  # fmt: skip
refused(
    "the shape of its result depends on values: use torch.where, or do it outside",
    "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive", "bincount",
)  # fmt: skip
refused(
    "it needs the value of a tensor, which is not known yet: use torch.where, or pass the number in",
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose",
)  # fmt: skip
refused(
    "its result is complex: use torch.linalg.eigh for a symmetric matrix",
    "_linalg_eigvals", "linalg_eig",
)  # fmt: skip
refused(
    "use torch.linalg.solve, cholesky, qr, eigh or svdvals",
    "linalg_ldl_factor_ex", "ormqr", "geqrf",
)  # fmt: skip
refused(
    "write the branch with torch.where and the loop in Python",
    "cond", "while_loop", "scan", "map_impl", "associative_scan", "flex_attention",
)  # fmt: skip
