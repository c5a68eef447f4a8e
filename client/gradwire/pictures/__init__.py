"""Pictures for people who look: sparsity patterns with their colorings, and graphs."""

from gradwire.pictures.graphs import Picture, graph
from gradwire.pictures.sparsity import spy

__all__ = ["Picture", "graph", "spy"]
