"""Rules for primitives and callbacks of packages on JAX: Equinox and Lineax."""
