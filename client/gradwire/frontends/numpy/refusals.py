"""Errors of tracing: those of `gradwire.graphs.refusals`."""

from gradwire.graphs.refusals import refuse, user_line

__all__ = ["refuse", "user_line"]
