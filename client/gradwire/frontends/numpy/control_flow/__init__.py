"""Loops, branches and batches in traced functions: one body in the graph, however often it runs.

Within a traced function each of these calls becomes a node with a graph of its own; what the body uses from
around it, traced or not, is captured. Elsewhere it runs in Python, on NumPy arrays, and means the same.
Arrays come alone, or in nested tuples, lists and dicts; None is an empty one.
"""

from gradwire.frontends.numpy.control_flow.batching import vmap
from gradwire.frontends.numpy.control_flow.branches import cond
from gradwire.frontends.numpy.control_flow.loops import fori, scan, while_

__all__ = ["cond", "fori", "scan", "vmap", "while_"]
