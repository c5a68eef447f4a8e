"""A drawn graph shows every node, constant, shape and subgraph, escaped; boxes never overlap."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradwire as gw
from gradwire.frontends.sources import load
from gradwire.pictures.layers import arrange
from gradwire.pictures.sketch import sketch


def _model(fn, *specs):
    return onnx.load_model_from_string(load(fn, specs).data)


def _parsed(text):
    return onnx.parser.parse_model(text)


CHAIN = _parsed(
    """<ir_version: 10, opset_import: ["" : 21]>
    chain (double[N, 4] x) => (double[N, 4] y) <double[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> {
        a = MatMul(x, w)
        two = Constant <value = double {2.5}> ()
        b = Mul(a, two)
        y = Softmax <axis = 1> (b)
    }"""
)

BRANCHES = _parsed(
    """<ir_version: 10, opset_import: ["" : 21]>
    branches (double[N] x, bool c) => (double[N] y) {
        s = Sin(x)
        y = If (c) <
            then_branch = t () => (double[N] a) { a = Mul(x, s) },
            else_branch = e () => (double[N] b) { b = Exp(s) }
        >
    }"""
)


def _texts(picture):
    root = ElementTree.fromstring(picture.svg)
    written = root.iter("{http://www.w3.org/2000/svg}text")
    return [one.text for one in written if one.get("aria-hidden") is None]


def test_inputs_operators_constants_settings_shapes_and_outputs_are_written():
    texts = _texts(gw.graph(CHAIN))
    for expected in ("chain", "x", "float64[N, 4]", "MatMul", "constant [4, 4]", "Mul", "2.5", "axis=1", "y"):
        assert expected in texts
    assert "Constant" not in texts, "constants are lines, not boxes"
    assert texts.count("[N, 4]") == 4, "each arrow has its shape"


def test_arrows_follow_the_values():
    drawn = sketch(CHAIN, "", 60)
    titles = [box.title for box in drawn.boxes]
    pairs = {(titles[arrow.source], titles[arrow.target]) for arrow in drawn.arrows}
    assert pairs == {("x", "MatMul"), ("MatMul", "Mul"), ("Mul", "Softmax"), ("Softmax", "y")}


def test_branches_are_drawn_inside_their_box_which_gets_what_they_read():
    drawn = sketch(BRANCHES, "", 60)
    titles = [box.title for box in drawn.boxes]
    branch = drawn.boxes[titles.index("If")]
    assert [one.title for one in branch.inside] == ["then_branch", "else_branch"]
    assert [box.title for box in branch.inside[0].boxes] == ["Mul", "a"]
    assert branch.inside[0].boxes[0].lines == ("outer x, s",)
    readers = {titles[arrow.source] for arrow in drawn.arrows if titles[arrow.target] == "If"}
    assert readers == {"x", "c", "Sin"}
    assert {"then_branch", "Exp"} <= set(_texts(gw.graph(BRANCHES)))


def test_a_loop_keeps_its_body_inside():
    def fn(x):
        return gw.fori(0, 5, lambda i, c: np.sin(c), x)

    drawn = sketch(_model(fn, gw.spec(3)), "", 60)
    (loop,) = [box for box in drawn.boxes if box.inside]
    assert "Sin" in [box.title for box in loop.inside[0].boxes]


def test_a_large_body_is_counted():
    def body(c):
        for _ in range(40):
            c = np.sin(c)
        return c

    drawn = sketch(_model(lambda x: gw.fori(0, 5, lambda i, c: body(c), x), gw.spec(3)), "", 60)
    (loop,) = [box for box in drawn.boxes if any("nodes" in line for line in box.lines)]
    assert not loop.inside
    assert any("Sin ×40" in line for line in loop.lines)


def test_of_a_long_graph_the_rest_is_one_box_that_counts_it():
    nodes = [onnx.helper.make_node("Sin", [f"v{i}"], [f"v{i + 1}"]) for i in range(5000)]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [2]) for name in ("v0", "v5000")
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "long", ends[:1], ends[1:]))
    texts = _texts(gw.graph(model))
    assert "… 4,941 more nodes" in texts
    assert "Sin ×4,941" in texts
    assert texts.count("Sin") == 59
    assert "v5000" in texts
    assert "… 5,000 more nodes" in _texts(gw.graph(model, limit=1))
    with pytest.raises(ValueError, match="limit=0"):
        gw.graph(model, limit=0)


def test_large_weights_keep_their_shapes_and_are_not_copied():
    weights = onnx.numpy_helper.from_array(np.zeros((700, 900)), "w")
    x, y = (onnx.helper.make_tensor_value_info(n, 11, [3, side]) for n, side in (("x", 700), ("y", 900)))
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    picture = gw.graph(onnx.helper.make_model(onnx.helper.make_graph([node], "dense", [x], [y], [weights])))
    assert "constant [700, 900]" in _texts(picture)
    assert "[3, 900]" in _texts(picture)
    assert len(picture.svg) < 10_000


def test_names_are_escaped_and_cut():
    evil = onnx.ModelProto()
    evil.CopyFrom(CHAIN)
    name = '<script>alert("x")</script>&' + "z" * 200
    evil.graph.name = name
    evil.graph.input[0].name = name
    evil.graph.node[0].input[0] = name
    picture = gw.graph(evil)
    assert "<script" not in picture.svg
    assert name in _texts(picture), "the title is whole"
    assert all(len(text) <= 30 for text in _texts(picture)[1:])


def test_constants_that_a_function_refers_to_are_no_inputs(channel_free_client):
    big = np.random.default_rng(0).normal(size=(400, 400))
    f = channel_free_client.function(lambda x: np.tanh(big @ x), gw.spec(400))
    texts = _texts(gw.graph(f))
    assert "constant [400, 400]" in texts
    assert not [text for text in texts if text.startswith("float64[400, 400]")]


def test_code_is_drawn_by_its_shapes_without_a_client():
    picture = gw.graph(lambda a, b: np.sin(a @ b), gw.spec((2, 3)), np.ones(3))
    assert "float64[2, 3]" in picture.svg and "MatMul" in picture.svg and "Sin" in picture.svg


def test_shapes_for_a_function_that_has_some_are_refused(channel_free_client):
    with pytest.raises(gw.InvalidArgumentError, match="without specs"):
        gw.graph(channel_free_client.function(lambda x: np.sin(x), gw.spec(3)), gw.spec(3))


def test_transforms_are_named_in_the_title(channel_free_client):
    f = channel_free_client.function(lambda x: np.sum(np.sin(x)), gw.spec(3))
    assert gw.graph(f.gradient().as_jvp()).title.endswith(" | gradient | jvp")
    assert "Sin" in _texts(gw.graph(f.gradient()))


@pytest.fixture
def channel_free_client():
    """A client that never calls its server."""
    with gw.connect("127.0.0.1:1") as client:
        yield client


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_picture_is_saved_as_its_name_says(tmp_path, suffix):
    path = gw.graph(BRANCHES).save(tmp_path / f"graph{suffix}")
    start = path.read_bytes()[:8]
    assert start.startswith({".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf"):
        gw.graph(BRANCHES).save(tmp_path / "graph.gif")


def test_a_notebook_shows_the_svg():
    picture = gw.graph(CHAIN)
    assert picture._repr_svg_() == picture.svg
    root = ElementTree.fromstring(picture.svg)
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for one in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(one.get(side, 0)) for side in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= width + 0.1 and y + h <= height + 0.1
    assert not re.search(r"(href|url\(|<script|<image)", picture.svg)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.floats(0.02, 0.4), st.integers(0, 10**6))
def test_boxes_lie_apart_and_arrows_go_down(count, density, seed):
    rng = np.random.default_rng(seed)
    sizes = [(float(w), float(h)) for w, h in rng.integers(20, 120, size=(count, 2))]
    arrows = [(a, b) for a, b in itertools.combinations(range(count), 2) if rng.random() < density]
    layout = arrange(sizes, arrows)
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(layout.corners, sizes, strict=True)]
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart
    for (source, target), route in zip(arrows, layout.routes, strict=True):
        assert route[0][1] == pytest.approx(boxes[source][3])
        assert route[-1][1] == pytest.approx(boxes[target][1])
        assert boxes[target][0] <= route[-1][0] <= boxes[target][2]
        heights = [y for _, y in route]
        assert heights == sorted(heights)
    width, height = layout.size
    assert all(x >= -1e-9 and y >= 0 and r <= width + 1e-6 and b <= height + 1e-6 for x, y, r, b in boxes)


def test_a_planar_ladder_is_drawn_without_crossings_and_a_chain_straight():
    chain = arrange([(40.0, 20.0)] * 6, [(i, i + 1) for i in range(5)])
    assert len({round(x, 6) for x, _ in chain.corners}) == 1
    crossed = arrange([(40.0, 20.0)] * 4, [(0, 3), (1, 2)])
    (a, _), (b, _), (c, _), (d, _) = crossed.corners
    assert (a < b) == (d < c)
