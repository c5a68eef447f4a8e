"""Translates exceptions that JAX raises while tracing and compiling to errors of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from gradwire_engine.errors import NO_REVERSE_MODE, EngineError, InvalidGraph, NotDifferentiable, one_line

_FORWARD = "forward-mode autodiff (jvp) to a custom_vjp"


@contextmanager
def refusals(failure: str) -> Iterator[None]:
    """Raise JAX's exceptions as errors of the engine, of one line that begins with `failure`.

    Raises:
        NotDifferentiable: JAX has no derivative of something, or not in this mode.
        InvalidGraph: anything else about the graph.
    """
    try:
        yield
    except EngineError:
        raise
    except RecursionError as error:
        raise InvalidGraph(f"{failure}: subgraphs or functions nest too deeply") from error
    except NotImplementedError as error:
        raise NotDifferentiable(f"{failure}: {one_line(error)}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError) as error:
        if NO_REVERSE_MODE in str(error):
            raise NotDifferentiable(
                f"reverse mode is not possible: {one_line(error, 1)}; use forward mode"
            ) from error
        if _FORWARD in str(error):
            raise NotDifferentiable(
                "forward mode is not possible: a function in the graph has a reverse rule alone; "
                "use reverse mode"
            ) from error
        raise InvalidGraph(f"{failure}: {one_line(error)}") from error
    except jax.errors.JaxRuntimeError as error:
        raise InvalidGraph(f"{failure}: {one_line(error)}") from error
