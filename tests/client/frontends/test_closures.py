"""A function's variables are its defaults, its closure and the globals that it or functions in it name."""

import math
import types

from gradwire.frontends.closures import top_package, variables

SCALE = 2.0
SETTINGS = types.ModuleType("settings")
SETTINGS.step, SETTINGS.unused = 0.5, 1.0


def _reading():
    offset = 3.0
    if not offset:
        later = None

    def reads(x, shift=1.0, *, sign=-1):
        def inner():
            return later, SCALE

        return inner, x * math.pi + offset + shift + sign + SETTINGS.step

    return reads


def test_every_variable_is_yielded_once_with_its_name():
    found = list(variables(_reading(), {"math"}))
    assert dict(found) == {
        "shift": 1.0,
        "sign": -1,
        "offset": 3.0,
        "math": math,
        "SCALE": SCALE,
        "SETTINGS": SETTINGS,
        "SETTINGS.step": 0.5,
    }
    assert len(found) == 7


def test_attributes_of_libraries_are_left_out_and_others_are_not():
    assert "math.pi" in dict(variables(_reading(), ()))
    assert top_package("scipy.linalg.lapack") == "scipy"
