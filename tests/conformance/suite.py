"""onnx's backend suite: its offline tests, by category, and those that the engine is expected to refuse."""

from __future__ import annotations

import tomllib
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto
from onnx.backend.base import Backend
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

CATEGORIES = {
    "Node": "node",
    "Simple": "simple",
    "PyTorchConverted": "pytorch-converted",
    "PyTorchOperator": "pytorch-operator",
}
"""The suite's categories that need no download, and the names of their folders."""

EXPECTED_FAILURES = Path(__file__).with_name("expected_failures.toml")


@dataclass(frozen=True)
class SuiteTest:
    """One test of the suite.

    Attributes:
        category: a key of CATEGORIES.
        name: without the device: "test_abs".
        case: the suite's own description.
    """

    category: str
    name: str
    case: TestCase

    @property
    def model(self) -> onnx.ModelProto:
        """The model under test."""
        if self.case.model is not None:
            return self.case.model
        return onnx.load(str(Path(str(self.case.model_dir)) / "model.onnx"))


@cache
def tests() -> tuple[SuiteTest, ...]:
    """Returns every offline test, generated in memory; the first call takes some seconds."""
    with warnings.catch_warnings():
        # The suite computes some expected values with overflows and divisions by zero on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        return tuple(
            SuiteTest(category, case.name, case)
            for category, kind in CATEGORIES.items()
            for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name)
        )


def functions(
    backend: type[Backend], tolerances: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[tuple[str, str, Callable[[unittest.TestCase], None]]]:
    """Returns the suite's own test functions for a backend on the CPU: (category, name, function).

    Args:
        backend: evaluates the models.
        tolerances: `rtol` or `atol` of tests whose tolerance is not the suite's.
    """
    import onnx.backend.test

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        made = onnx.backend.test.BackendTest(backend, __name__, test_kwargs=dict(tolerances or {})).test_cases
    for category in CATEGORIES:
        cls = made[f"OnnxBackend{category}ModelTest"]
        for name in sorted(vars(cls)):
            if name.startswith("test_") and name.endswith("_cpu"):
                yield category, name.removesuffix("_cpu"), getattr(cls, name)


@dataclass(frozen=True)
class Deviation:
    """Tests in which the engine deviates from the suite, and the reason.

    Attributes:
        tests: patterns of names.
        reason: for a reader.
        raises: name of the error that each test has to end in; "" where it passes.
        tolerances: looser than the suite's, for tests that pass with them.
    """

    tests: tuple[str, ...]
    reason: str
    raises: str
    tolerances: dict[str, float]


@cache
def deviations() -> tuple[Deviation, ...]:
    """Returns the sections of the file of expected failures."""
    sections = tomllib.loads(EXPECTED_FAILURES.read_text()).values()
    return tuple(
        Deviation(
            tuple(section["tests"]),
            section["reason"],
            "" if "tolerances" in section else section.get("raises", "EngineError"),
            section.get("tolerances", {}),
        )
        for section in sections
    )


def expected_failure(name: str) -> Deviation | None:
    """Returns the reason why a test does not pass, or None where it has to."""
    for item in deviations():
        if item.raises and any(fnmatchcase(name, pattern) for pattern in item.tests):
            return item
    return None


def tolerances() -> dict[str, dict[str, float]]:
    """Returns the tolerances that differ from the suite's, by test."""
    return {name: item.tolerances for item in deviations() for name in item.tests if item.tolerances}


def element_types(values: Any) -> set[int]:
    """Returns the element types of a graph's inputs or outputs, those in sequences and optionals included."""
    found = set()
    for value in values:
        kind = value.type
        while (field := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
            kind = getattr(kind, field).elem_type
        found.add(kind.tensor_type.elem_type if field == "tensor_type" else TensorProto.UNDEFINED)
    return found


def is_floating(model: onnx.ModelProto) -> bool:
    """Returns whether a model has float32 or float64 inputs and outputs."""
    floats = {TensorProto.FLOAT, TensorProto.DOUBLE}
    return bool(element_types(model.graph.input) & floats and element_types(model.graph.output) & floats)
