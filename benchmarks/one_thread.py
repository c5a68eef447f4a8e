"""Gives JAX one thread in this process, as each worker has one; JAX reads it when it is first imported."""

from __future__ import annotations

from gradwire_server.process.environment import prepare_compute

prepare_compute("cpu", 1, 0)
