"""Special functions in traced functions, where SciPy's own cannot be reached.

SciPy's elementwise functions (``scipy.special.gammaln``) are ufuncs and trace as they are. Those that are
not (logsumexp, softmax, polygamma, ...) turn their arguments into plain arrays first, unless SciPy's support
of the Array API is on (``SCIPY_ARRAY_API=1`` before SciPy is imported). These stand in for them, for traced
and for plain arrays alike. Every elementwise function that traces is here too, under SciPy's name, which is
where SciPy looks for them when its support of the Array API is on.
"""

from gradwire.frontends.numpy import special as _special
from gradwire.frontends.numpy.special import (
    gammaln,
    log_softmax,
    logsumexp,
    multigammaln,
    polygamma,
    softmax,
)

__all__ = ["gammaln", "log_softmax", "logsumexp", "multigammaln", "polygamma", "softmax"]

__getattr__ = _special.__getattr__
__dir__ = _special.__dir__
