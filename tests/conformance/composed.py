"""Composed subjects, for operators that the suite has in no differentiable form.

These are sequences, branches, classical models and regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from tests.conformance.lifted import Subject, qualified
from tests.conformance.points import point
from tests.engine.lowering.derivative_checks import one_node

ML = "ai.onnx.ml"

TEXTS = {
    "If": """(double[4] x, bool c) => (double[4] y) {
        y = If (c) <then_branch = t () => (double[4] a) { a = Sin (x) },
                    else_branch = e () => (double[4] b) { b = Exp (x) }> }""",
    "SequenceConstruct": """(double[2] x, double[3] z) => (double[5] y) {
        s = SequenceConstruct (x, z)
        y = ConcatFromSequence <axis = 0> (s) }""",
    "SequenceAt": """(double[2] x, double[2] z) => (double[2] y) {
        i = Constant <value = int64 {-1}> ()
        s = SequenceConstruct (x, z)
        a = SequenceAt (s, i)
        y = Mul (a, x) }""",
    "SequenceInsert": """(double[2] x, double[2] z) => (double[2, 2] y) {
        s = SequenceConstruct (x)
        t = SequenceInsert (s, z)
        y = ConcatFromSequence <axis = 0, new_axis = 1> (t) }""",
    "SequenceErase": """(double[2] x, double[2] z) => (double[2] y) {
        i = Constant <value = int64 {0}> ()
        s = SequenceConstruct (x, z)
        t = SequenceErase (s, i)
        y = ConcatFromSequence <axis = 0> (t) }""",
    "ConcatFromSequence": """(double[2] x, double[2] z) => (double[2, 3] y) {
        s = SequenceConstruct (x, z, x)
        y = ConcatFromSequence <axis = 1, new_axis = 1> (s) }""",
    "Optional": """(double[3] x) => (double[3] y) {
        o = Optional (x)
        a = OptionalGetElement (o)
        y = Exp (a) }""",
}
"""Operators on sequences and optionals, between operators that convert them to arrays."""

X = np.array([[0.3, -1.2], [1.1, 0.4], [-0.7, 0.9]])

_TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [1, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
}
_SVM: dict[str, Any] = {
    "kernel_type": "RBF",
    "kernel_params": [0.5, 0.0, 3.0],
    "coefficients": [0.7, -0.4, 0.2],
    "support_vectors": [0.1, 0.2, -0.5, 1.0, 0.8, -0.3],
}

ML_CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("FeatureVectorizer", [X, X[:, :1]], {"inputdimensions": [2, 1]}),
    ("Imputer", [X], {"imputed_value_floats": [1.0, 2.0], "replaced_value_float": 7.0}),
    ("Scaler", [X], {"offset": [1.0, -1.0], "scale": [0.5, 2.0]}),
    *(("Normalizer", [X], {"norm": norm}) for norm in ("MAX", "L1", "L2")),
    *(
        (
            "LinearRegressor",
            [X],
            {"coefficients": [0.5, 0.25, -1.0, 2.0], "intercepts": [0.1, 0.2], "targets": 2, **post},
        )
        for post in ({}, {"post_transform": "SOFTMAX"}, {"post_transform": "LOGISTIC"})
    ),
    (
        "LinearClassifier",
        [X],
        {
            "coefficients": [0.5, 0.25, -1.0, 2.0, 0.3, -0.6],
            "intercepts": [0.1, 0.2, -0.3],
            "classlabels_ints": [0, 1, 2],
            "post_transform": "SOFTMAX",
            "outputs": 2,
        },
    ),
    ("SVMRegressor", [X], {**_SVM, "n_supports": 3, "rho": [0.25]}),
    (
        "SVMClassifier",
        [X],
        {**_SVM, "vectors_per_class": [2, 1], "rho": [0.25], "classlabels_ints": [0, 1], "outputs": 2},
    ),
    (
        "TreeEnsembleRegressor",
        [X],
        {
            **_TREE,
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
            "n_targets": 1,
        },
    ),
    (
        "TreeEnsembleClassifier",
        [X],
        {
            **_TREE,
            "class_treeids": [0, 0],
            "class_nodeids": [1, 2],
            "class_ids": [0, 1],
            "class_weights": [0.25, 0.75],
            "classlabels_int64s": [0, 1],
            "outputs": 2,
        },
    ),
]


def subjects() -> Iterator[Subject]:
    """Returns all composed subjects, at points where they are smooth."""
    for op, text in TEXTS.items():
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> agraph {text}')
        sizes = {item.name: item.type.tensor_type for item in model.graph.input}
        values = {
            name: np.array(True)
            if kind.elem_type == onnx.TensorProto.BOOL
            else 0.3 + 0.4 * np.arange(kind.shape.dim[0].dim_value)
            for name, kind in sizes.items()
        }
        for condition in (True, False) if "c" in values else (True,):
            given = {**values, "c": np.array(condition)} if "c" in values else values
            yield Subject(op, f"{op} {condition}", model, given)
    for op, inputs, options in ML_CASES:
        yield _one_node(op, inputs, {**options, "domain": ML, "domain_opset": 3})
    image = np.random.default_rng(3).standard_normal((1, 2, 6, 6))
    regions = np.array([[0.0, 0.0, 0.0, 3.0, 4.0], [0.0, 1.0, 2.0, 5.0, 5.0]])
    yield _one_node("MaxRoiPool", [image, regions], {"pooled_shape": [2, 2]})


def _one_node(op: str, inputs: list[Any], options: dict[str, Any]) -> Subject:
    name = qualified(options.get("domain", ""), op)
    inputs = point(name, options, inputs, seed=1)
    values = {f"x{index}": value for index, value in enumerate(inputs)}
    return Subject(name, f"{name} {options}", one_node(op, *inputs, **options), values)
