"""Creating, shaping, joining, selecting, sorting and searching arrays.

Implementations follow the convention of `gradwire.frontends.numpy.functions`.
"""

from gradwire.frontends.numpy.functions.manipulation import (
    applying,
    creation,
    in_place,
    joining,
    searching,
    selection,
    shaping,
    sorting,
)

__all__ = ["applying", "creation", "in_place", "joining", "searching", "selection", "shaping", "sorting"]
