"""Special functions that work on traced arrays, in place of functions of SciPy that do not.

SciPy's elementwise functions (`scipy.special.gammaln`) are ufuncs and can be traced directly. Others
(logsumexp, softmax, polygamma, ...) convert their arguments to plain arrays first, unless SciPy's support of
the Array API is on (`SCIPY_ARRAY_API=1` before SciPy is imported). The functions here replace them and take
traced and plain arrays. Every elementwise function that can be traced is here too, under SciPy's name.
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
