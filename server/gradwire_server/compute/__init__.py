"""Computation: the scheduler, the workers, their kernels, the fast path, accumulation and the store."""
