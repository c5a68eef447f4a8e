"""Lowering: evaluates ONNX operators in JAX, with one rule per operator.

Importing the package fills the registry of rules; `evaluate` interprets a model with them.
"""

from gradwire_engine.lowering import rules as _rules  # noqa: F401  (fills the registry)
from gradwire_engine.lowering.interpreter import Notes, evaluate
from gradwire_engine.lowering.registry import all_rules, find_rule, rule

__all__ = ["Notes", "all_rules", "evaluate", "find_rule", "rule"]
