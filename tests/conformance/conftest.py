"""Other projects' suites, and derivatives of every operator."""

from tests.quick_compiling import quick_compiling

__all__ = ["quick_compiling"]
