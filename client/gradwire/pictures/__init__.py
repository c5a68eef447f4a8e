"""Draws graphs, and sparsity patterns with their colorings."""

from gradwire.pictures.graphs import Picture, graph
from gradwire.pictures.sparsity import spy

__all__ = ["Picture", "graph", "spy"]
