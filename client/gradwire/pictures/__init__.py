"""Pictures for people who look: sparsity patterns with their colorings, and graphs."""

from gradwire.pictures.sparsity import spy

__all__ = ["spy"]
