"""Reductions, averages and running sums, with and without NaN.

Implementations follow the convention of `gradwire.frontends.numpy.functions`.
"""

from gradwire.frontends.numpy.functions.statistics import averages, ignoring_nan, reductions, scans

__all__ = ["averages", "ignoring_nan", "reductions", "scans"]
