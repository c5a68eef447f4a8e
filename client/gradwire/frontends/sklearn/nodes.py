"""Writing nodes into a graph that skl2onnx is making."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.defs
import onnx.helper
import onnx.numpy_helper
from skl2onnx.common.data_types import guess_numpy_type

Operand = str | float | npt.NDArray[Any]
"""The name of a value, or numbers: floating ones are stored in the graph's type."""


class Nodes:
    """The nodes of one estimator: calling it adds one and returns the name of what comes out.

    Attributes:
        estimator: the fitted model that is being converted.
        x: the name of its input, of shape (rows, features), in `dtype`.
        dtype: float64, or float32 for a graph of that type.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._container = scope, container
        self._outputs = operator.outputs
        self.estimator = operator.raw_operator
        (entry,) = operator.inputs
        given = np.dtype(guess_numpy_type(entry.type))
        self.dtype = np.dtype(np.float32 if given == np.float32 else np.float64)
        self.x: str = entry.full_name
        if given != self.dtype:
            self.x = self("Cast", self.x, to=onnx.helper.np_dtype_to_tensor_dtype(self.dtype))

    def __call__(self, op: str, *inputs: Operand, output: int | None = None, **attributes: Any) -> str:
        """Add a node; `output` is the place of the estimator's output that it makes, if it makes one."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        if output is None:
            name = str(self._scope.get_unique_variable_name(op.lower()))
        else:
            name = str(self._outputs[output].full_name)
        limit = self._container.target_opset_any_domain("")
        self._container.add_node(
            op,
            names,
            [name],
            op_version=onnx.defs.get_schema(op, limit).since_version,
            name=self._scope.get_unique_operator_name(op),
            **attributes,
        )
        return name

    def _constant(self, values: Operand) -> str:
        array = np.asarray(values)
        tensor = onnx.numpy_helper.from_array(array.astype(self.dtype) if array.dtype.kind == "f" else array)
        name = str(self._scope.get_unique_variable_name("constant"))
        self._container.add_initializer(name, tensor.data_type, list(array.shape), tensor)
        return name

    @property
    def outputs(self) -> int:
        """How many outputs are wanted."""
        return len(self._outputs)

    def option(self, name: str) -> bool:
        """Whether an option of skl2onnx is set for this estimator."""
        return bool(self._container.get_options(self.estimator, {name: False}, fail=False).get(name))

    def filled(self, x: str, value: float, *extents: int) -> str:
        """The same number everywhere in an array of one row for each of `x`, and further extents."""
        shape = self("Shape", x, start=0, end=1)
        if extents:
            shape = self("Concat", shape, np.array(extents), axis=0)
        return self("Expand", value, shape)

    def total(self, values: str, axis: int) -> str:
        """The sum over one axis, which goes."""
        return self("ReduceSum", values, np.array([axis]), keepdims=0)

    def label(self, scores: str) -> str:
        """The class of the largest score of each row, as the estimator's first output."""
        best = self("ArgMax", scores, axis=1, keepdims=0)
        return self.chosen(best)

    def chosen(self, places: str) -> str:
        """The classes at these places, as the estimator's first output."""
        classes = np.asarray(self.estimator.classes_)
        known = classes.astype(str if classes.dtype.kind in "UO" else np.int64)
        return self("Gather", known, places, axis=0, output=0)
