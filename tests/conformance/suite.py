"""onnx's backend suite: its offline tests, by category, and which of them the engine is to refuse."""

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
    """Every offline test, generated in memory: takes some seconds the first time."""
    with warnings.catch_warnings():
        # The suite makes its expected values with overflows and divisions by zero on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        return tuple(
            SuiteTest(category, case.name, case)
            for category, kind in CATEGORIES.items()
            for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name)
        )


def functions(
    backend: type[Backend], tolerances: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[tuple[str, str, Callable[[unittest.TestCase], None]]]:
    """The suite's own test functions for a backend on the CPU: (category, name, function).

    Args:
        backend: what evaluates the models.
        tolerances: ``rtol`` or ``atol`` of tests that are held to others than the suite's.
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
    """Tests that do not hold the engine to the suite's letter, and why.

    Attributes:
        tests: patterns of names.
        reason: for a reader.
        raises: name of the error that each test has to end in; "" where it passes.
        tolerances: looser ones than the suite's, for tests that pass with them.
    """

    tests: tuple[str, ...]
    reason: str
    raises: str
    tolerances: dict[str, float]


@cache
def deviations() -> tuple[Deviation, ...]:
    """The sections of the file of expected failures."""
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
    """Why a test does not pass, or None where it has to."""
    for item in deviations():
        if item.raises and any(fnmatchcase(name, pattern) for pattern in item.tests):
            return item
    return None


def tolerances() -> dict[str, dict[str, float]]:
    """Tolerances of the tests that have others than the suite's."""
    return {name: item.tolerances for item in deviations() for name in item.tests if item.tolerances}


def element_types(values: Any) -> set[int]:
    """The element types of a graph's inputs or outputs, those within sequences and optionals included."""
    found = set()
    for value in values:
        kind = value.type
        while (field := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
            kind = getattr(kind, field).elem_type
        found.add(kind.tensor_type.elem_type if field == "tensor_type" else TensorProto.UNDEFINED)
    return found


def is_floating(model: onnx.ModelProto) -> bool:
    """Whether a model takes and gives float32 or float64."""
    floats = {TensorProto.FLOAT, TensorProto.DOUBLE}
    return bool(element_types(model.graph.input) & floats and element_types(model.graph.output) & floats)
