"""Loops, branches and batches in traced functions, each with one body in the graph however often it runs.

In a traced function each of these calls becomes a node with a subgraph; values that the body uses from
outside, traced or not, are captured. Without a trace it runs in Python on NumPy arrays, with the same result.
Arguments are arrays, or nested tuples, lists and dicts of arrays; None is an empty one.
"""

from gradwire.frontends.numpy.control_flow.batching import vmap
from gradwire.frontends.numpy.control_flow.branches import cond
from gradwire.frontends.numpy.control_flow.loops import fori, scan, while_

__all__ = ["cond", "fori", "scan", "vmap", "while_"]
