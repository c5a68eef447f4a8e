"""Front-ends: what users write, as graphs, against the framework that they write it in."""

from tests.quick_compiling import quick_compiling

__all__ = ["quick_compiling"]
