"""Draws nodes of the operators with the most attributes: each a legal node, its inputs, and an opset.

One function a family; the same generator draws the same node. Arrays are small and float32, the type that
onnxruntime has most kernels for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Random = np.random.Generator


@dataclass(frozen=True)
class DrawnNode:
    """A node to evaluate.

    Attributes:
        op: the operator.
        inputs: arrays; None for one that is omitted.
        attributes: of the node.
        opset: of the model.
        outputs: their number.
        static: positions of inputs that decide shapes, and are constants therefore.
        tolerance: the difference that rounding explains, relative to the largest result.
    """

    op: str
    inputs: list[Array | None]
    attributes: dict[str, Any]
    opset: int
    outputs: int = 1
    static: frozenset[int] = field(default_factory=frozenset)
    tolerance: float = 2e-5


def _one(random: Random, *choices: Any) -> Any:
    return choices[int(random.integers(len(choices)))]


def _some(random: Random, *shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


def _apart(random: Random, *shape: int) -> Array:
    """Returns values no two of which are equal, or nearly."""
    size = int(np.prod(shape))
    return random.permutation(np.linspace(-2, 2, size)).astype(np.float32).reshape(shape)


def _present(**attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def resize(random: Random) -> DrawnNode:
    """Resize, by scales or sizes, in every mode of coordinates."""
    opset = _one(random, 11, 13, 18, 19)
    data = _some(random, 1, _one(random, 1, 2), *random.integers(2, 8, 2))
    mode = _one(random, "nearest", "linear", "cubic")
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    if opset >= 19:
        coordinates.append("half_pixel_symmetric")
    if mode != "cubic":
        coordinates.append("tf_crop_and_resize")
    if mode == "nearest" and opset < 13:
        coordinates.append("tf_half_pixel_for_nn")
    chosen = _one(random, *coordinates)
    roi = None
    if chosen == "tf_crop_and_resize":
        roi = np.concatenate([[0, 0], random.uniform(-0.3, 0.4, 2), [1, 1], random.uniform(0.5, 1.2, 2)])
        roi = roi.astype(np.float32)
    elif opset < 13:
        roi = np.zeros(0, np.float32)
    scales = np.array([1, 1, *random.uniform(0.3, 2.9, 2)], np.float32)
    sizes = None
    if _one(random, True, False):
        sizes = np.array([*data.shape[:2], *random.integers(1, 12, 2)])
        scales = np.zeros(0, np.float32) if opset < 13 else None
    elif (scales * data.shape < 1).any():
        scales = np.array([1, 1, 1.7, 2.3], np.float32)
    attributes = _present(
        mode=mode,
        coordinate_transformation_mode=chosen,
        nearest_mode=_one(random, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        if mode == "nearest"
        else None,
        cubic_coeff_a=_one(random, -0.5, -0.75) if mode == "cubic" else None,
        exclude_outside=_one(random, 0, 1) if mode == "cubic" else None,
        extrapolation_value=3.5 if chosen == "tf_crop_and_resize" else None,
    )
    inputs = [data, roi, scales] if sizes is None else [data, roi, scales, sizes]
    return DrawnNode("Resize", inputs, attributes, opset, static=frozenset({1, 2, 3}), tolerance=5e-5)


def grid_sample(random: Random) -> DrawnNode:
    """GridSample, with positions in and far outside the image."""
    opset, deep = _one(random, (16, False), (20, False), (20, True))
    modes = ("linear", "nearest") if deep else ("linear", "nearest", "cubic")
    mode = _one(random, *modes)
    if opset < 20:
        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    space = random.integers(2, 7, 3 if deep else 2)
    points = random.integers(1, 4, 3 if deep else 2)
    grid = random.uniform(-1, 1, (2, *points, len(space))) * _one(random, 1.0, 1.6, 4.0)
    attributes = {
        "mode": mode,
        "padding_mode": _one(random, "zeros", "border", "reflection"),
        "align_corners": _one(random, 0, 1),
    }
    return DrawnNode(
        "GridSample",
        [_some(random, 2, 2, *space), grid.astype(np.float32)],
        attributes,
        opset,
        tolerance=1e-4,
    )


def _window(random: Random, rank: int, sizes: Array) -> dict[str, Any]:
    """Draws kernel, strides, dilations and padding that leave at least one window."""
    kernel = random.integers(1, 4, rank)
    dilations = random.integers(1, 3, rank)
    reach = dilations * (kernel - 1) + 1
    dilations = np.where(reach > sizes, 1, dilations)
    kernel = np.minimum(kernel, sizes)
    strides = random.integers(1, 4, rank)
    drawn: dict[str, Any] = {
        "kernel_shape": kernel.tolist(),
        "strides": strides.tolist(),
        "dilations": dilations.tolist(),
    }
    padding = _one(random, None, "pads", "SAME_UPPER", "SAME_LOWER", "VALID")
    if padding == "pads":
        drawn["pads"] = [int(random.integers(0, extent)) for extent in (*kernel, *kernel)]
    elif padding:
        drawn["auto_pad"] = padding
        # A ConvTranspose of the same size whose windows leave gaps: onnxruntime does not fill them up.
        drawn["strides"] = np.minimum(strides, kernel).tolist()
        drawn["dilations"] = [1] * rank
    return drawn


def pooling(random: Random) -> DrawnNode:
    """MaxPool with positions, AveragePool, LpPool."""
    rank = _one(random, 1, 2, 3)
    sizes = random.integers(4, 8, rank)
    op = _one(random, "MaxPool", "AveragePool", "LpPool")
    attributes = _window(random, rank, sizes)
    opset = _one(random, 19, 22) if op == "AveragePool" else _one(random, 12, 18)
    if op == "LpPool":
        opset = 18
        attributes["p"] = _one(random, 1, 2, 3)
    if op == "AveragePool":
        attributes["count_include_pad"] = _one(random, 0, 1)
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = _one(random, 0, 1)
    outputs = 1
    if op == "MaxPool":
        outputs = _one(random, 1, 2)
        attributes["storage_order"] = _one(random, 0, 1) if outputs == 2 else 0
    return DrawnNode(op, [_apart(random, 2, 2, *sizes)], attributes, opset, outputs)


def roi_align(random: Random) -> DrawnNode:
    """RoiAlign, with regions that leave the image."""
    opset = _one(random, 10, 16)
    height, width = random.integers(5, 9, 2)
    corner = random.uniform(-2, 6, (3, 2))
    rois = np.concatenate([corner, corner + random.uniform(0.2, 9, (3, 2))], axis=1).astype(np.float32)
    attributes = _present(
        output_height=int(random.integers(1, 4)),
        output_width=int(random.integers(1, 4)),
        sampling_ratio=int(random.integers(0, 4)),
        spatial_scale=_one(random, 1.0, 0.5),
        mode=_one(random, "avg", "max"),
        coordinate_transformation_mode=_one(random, "half_pixel", "output_half_pixel")
        if opset >= 16
        else None,
    )
    owners = random.integers(0, 2, 3)
    return DrawnNode(
        "RoiAlign",
        [_some(random, 2, 2, height, width), rois, owners],
        attributes,
        opset,
        static=frozenset({1}),
    )


def padding(random: Random) -> DrawnNode:
    """Pad in every mode; negative pads cut."""
    opset = _one(random, 13, 18, 19)
    rank = _one(random, 1, 2, 3)
    data = _some(random, *random.integers(3, 6, rank))
    mode = _one(random, "constant", "reflect", "edge", *(["wrap"] if opset >= 19 else []))
    lowest = -1 if mode == "constant" else 0
    pads = random.integers(lowest, 3, 2 * rank)
    inputs: list[Array | None] = [data, pads]
    if mode == "constant" and _one(random, True, False):
        inputs.append(np.array(1.5, np.float32))
    if opset >= 18 and _one(random, True, False):
        axes = random.permutation(rank)[: _one(random, 1, rank)]
        inputs[1] = pads[: 2 * len(axes)]
        inputs += [None] * (3 - len(inputs)) + [axes - _one(random, 0, rank)]
    return DrawnNode("Pad", inputs, {"mode": mode}, opset, static=frozenset({1, 3}))


def convolution(random: Random) -> DrawnNode:
    """Conv and ConvTranspose, in groups, with every kind of padding."""
    rank = _one(random, 1, 2)
    group = _one(random, 1, 2)
    sizes = random.integers(4, 7, rank)
    attributes = _window(random, rank, sizes)
    kernel = attributes["kernel_shape"]
    op = _one(random, "Conv", "ConvTranspose", "ConvTranspose")
    if op == "Conv":
        weights = _some(random, 2 * group, 2, *kernel)
        bias = _some(random, 2 * group)
    else:
        weights = _some(random, 2 * group, 3, *kernel)
        bias = _some(random, 3 * group)
        strides, dilations = np.array(attributes["strides"]), np.array(attributes["dilations"])
        if "auto_pad" not in attributes and _one(random, True, False):
            attributes["output_padding"] = [
                int(random.integers(0, most)) for most in np.maximum(strides, dilations)
            ]
        elif attributes.get("auto_pad") != "VALID" and _one(random, True, False):
            attributes.pop("pads", None)
            full = strides * (sizes - 1) + dilations * (np.array(kernel) - 1) + 1
            attributes["output_shape"] = [int(size - random.integers(0, 2)) for size in full]
    attributes["group"] = group
    inputs: list[Array | None] = [_some(random, 2, 2 * group, *sizes), weights]
    if _one(random, True, False):
        inputs.append(bias)
    return DrawnNode(op, inputs, attributes, _one(random, 11, 22))


_ACTIVATIONS = ("Sigmoid", "Tanh", "Relu", "Softsign", "HardSigmoid", "LeakyRelu")
"""None that grows fast: onnxruntime overflows in Softplus and Elu where the result is finite."""


def recurrent(random: Random) -> DrawnNode:
    """RNN, LSTM and GRU, in every direction, with lengths, peepholes and clipping."""
    op = _one(random, "RNN", "LSTM", "GRU")
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[op]
    steps, batch, size, hidden = (int(random.integers(1, 5)) for _ in range(4))
    direction = _one(random, "forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    functions = {"RNN": 1, "LSTM": 3, "GRU": 2}[op] * ways
    inputs: list[Array | None] = [
        _some(random, steps, batch, size),
        _some(random, ways, gates * hidden, size),
        _some(random, ways, gates * hidden, hidden),
        _one(random, None, _some(random, ways, 2 * gates * hidden)),
        _one(random, None, random.integers(1, steps + 1, batch).astype(np.int32)),
        _one(random, None, _some(random, ways, batch, hidden)),
    ]
    if op == "LSTM":
        inputs.append(_one(random, None, _some(random, ways, batch, hidden)))
        inputs.append(_one(random, None, _some(random, ways, 3 * hidden)))
    while inputs[-1] is None:
        inputs.pop()
    attributes = _present(
        hidden_size=hidden,
        direction=direction,
        clip=_one(random, None, 0.7),
        activations=_one(random, None, [_one(random, *_ACTIVATIONS) for _ in range(functions)]),
        linear_before_reset=_one(random, 0, 1) if op == "GRU" else None,
        input_forget=_one(random, 0, 1) if op == "LSTM" else None,
    )
    return DrawnNode(op, inputs, attributes, _one(random, 7, 14), 3 if op == "LSTM" else 2)


def scatter(random: Random) -> DrawnNode:
    """ScatterND and ScatterElements, with every reduction; indices repeat only where the order is free."""
    op = _one(random, "ScatterND", "ScatterElements")
    opset = _one(random, 16, 18)
    reduction = _one(random, "none", "add", "mul", *(["max", "min"] if opset >= 18 else []))
    data = _some(random, 4, 3, 2)
    if op == "ScatterND":
        depth = _one(random, 1, 2)
        rows = int(np.prod(data.shape[:depth]))
        picked = random.permutation(rows)[:3] if reduction == "none" else random.integers(0, rows, 3)
        index = np.stack(np.unravel_index(picked, data.shape[:depth]), axis=-1)
        index = np.where(random.random(index.shape) < 0.3, index - data.shape[:depth], index)
        return DrawnNode(
            op, [data, index, _some(random, 3, *data.shape[depth:])], {"reduction": reduction}, opset
        )
    axis = int(random.integers(-3, 3))
    shape = list(data.shape)
    shape[axis] = _one(random, 1, 2)
    order = np.argsort(random.random(data.shape), axis=axis)
    index = np.take(order, range(shape[axis]), axis=axis)
    if reduction != "none":
        index = random.integers(0, data.shape[axis], shape)
    index = np.where(random.random(index.shape) < 0.3, index - data.shape[axis], index)
    return DrawnNode(op, [data, index, _some(random, *shape)], {"axis": axis, "reduction": reduction}, opset)


def top_k(random: Random) -> DrawnNode:
    """TopK in both orders, with and without equal values."""
    data = _apart(random, 3, 4, 5)
    if _one(random, True, False):
        data = np.round(data)
    axis = int(random.integers(-3, 3))
    count = np.array([random.integers(1, data.shape[axis] + 1)])
    attributes = {"axis": axis, "largest": _one(random, 0, 1), "sorted": 1}
    return DrawnNode("TopK", [data, count], attributes, 11, 2, static=frozenset({1}))


_EQUATIONS = (
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba,cb", (2, 3), (4, 2)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)),
    ("...ij,...jk->...ik", (2, 3, 4), (1, 4, 2)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("i,j->ji", (2,), (3,)),
    ("ij->", (2, 3)),
    ("bii->bi", (2, 3, 3)),
    ("ijk,jl,kl->il", (2, 3, 4), (3, 2), (4, 2)),
    ("ij,ij->j", (2, 3), (2, 3)),
    ("i...->...", (2, 3, 4)),
    ("b n h w, n d -> b d h w", (2, 3, 2, 2), (3, 4)),
)


def einsum(random: Random) -> DrawnNode:
    """Einsum with and without a result, diagonals, sums, dots and spaces."""
    equation, *shapes = _EQUATIONS[int(random.integers(len(_EQUATIONS)))]
    return DrawnNode("Einsum", [_some(random, *shape) for shape in shapes], {"equation": equation}, 12)


def normalization(random: Random) -> DrawnNode:
    """Every normalization that ONNX has, in inference."""
    op = _one(
        random,
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "LRN",
        "LpNormalization",
        "MeanVarianceNormalization",
    )
    shape = (2, 4, *random.integers(2, 5, _one(random, 1, 2)))
    data = _some(random, *shape)
    scale, bias = _some(random, 4), _some(random, 4)
    epsilon = _one(random, 1e-5, 1e-2)
    match op:
        case "BatchNormalization":
            moments = [_some(random, 4), np.exp(_some(random, 4))]
            return DrawnNode(op, [data, scale, bias, *moments], {"epsilon": epsilon}, _one(random, 9, 15))
        case "InstanceNormalization":
            return DrawnNode(op, [data, scale, bias], {"epsilon": epsilon}, 6)
        case "LayerNormalization":
            axis = int(random.integers(1, len(shape))) - _one(random, 0, len(shape))
            factors = [_some(random, *shape[axis:]) for _ in range(_one(random, 1, 2))]
            attributes = {"axis": axis, "epsilon": epsilon}
            return DrawnNode(op, [data, *factors], attributes, 17, _one(random, 1, 3))
        case "GroupNormalization":
            return DrawnNode(op, [data, scale, bias], {"epsilon": epsilon, "num_groups": 2}, 21)
        case "LRN":
            data = _some(random, 2, 6, 3, 3)
            attributes = {"size": int(_one(random, 1, 3, 5)), "alpha": 0.3, "beta": 0.6, "bias": 1.5}
            return DrawnNode(op, [data], attributes, 13)
        case "LpNormalization":
            axis = int(random.integers(-len(shape), len(shape)))
            return DrawnNode(op, [data], {"axis": axis, "p": _one(random, 1, 2)}, _one(random, 1, 22))
    axes = sorted(random.permutation(len(shape))[: int(random.integers(1, len(shape)))].tolist())
    return DrawnNode(op, [data], {"axes": axes}, 13)


FAMILIES: dict[str, Callable[[Random], DrawnNode]] = {
    "resize": resize,
    "grid_sample": grid_sample,
    "pooling": pooling,
    "roi_align": roi_align,
    "padding": padding,
    "convolution": convolution,
    "recurrent": recurrent,
    "scatter": scatter,
    "top_k": top_k,
    "einsum": einsum,
    "normalization": normalization,
}
