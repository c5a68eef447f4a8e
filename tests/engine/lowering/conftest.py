"""Tests of lowering rules: numbers and derivatives of one operator each."""

from tests.quick_compiling import quick_compiling

__all__ = ["quick_compiling"]
