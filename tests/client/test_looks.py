"""What plans, blocks and functions say of themselves, in terminals and notebooks."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

import gradwire as gw
from gradwire.tables import html_table

FLOAT64 = np.dtype(np.float64)
SMALL = gw.Plan(
    kind="jacobian",
    mode="forward",
    entries=(gw.Entry("y", (2, 2), "x", (2, 2), FLOAT64),),
    blocks=1,
    block_width=4,
    seeds=4,
    result_bytes=128,
    block_memory_bytes=960,
    block_flops=23,
    plan_id="p",
)
LARGE = replace(
    SMALL,
    kind="hessian",
    of="loss",
    mode="forward_over_reverse",
    entries=(
        gw.Entry("weights", (100, 100), "weights", (100, 100), FLOAT64),
        gw.Entry("weights", (100, 100), "b", (7,), FLOAT64),
    ),
    blocks=40,
    block_width=2560,
    seeds=10_007,
    result_bytes=800_560_000,
    block_memory_bytes=2 * 10**7,
    block_flops=3 * 10**9,
)
EVIL = "<img src=x onerror=alert(1)>&"


def _cells(html):
    return [one.text for one in ElementTree.fromstring(html).iter("td")]


def test_a_small_plan_is_four_lines():
    assert str(SMALL).splitlines() == [
        "jacobian, forward mode: asked for, or the graph has no reverse mode",
        "  4 seeds in 1 block",
        "  d y / d x  float64 [2, 2, 2, 2]  4 × 4",
        "  result 128 B; a block takes about 960 B of memory and 23 flop",
    ]


def test_a_large_plan_lines_its_matrices_up():
    assert str(LARGE).splitlines() == [
        "hessian, forward over reverse mode",
        "  10,007 seeds in 40 blocks of up to 2,560",
        "  d2 loss / dweights dweights  float64 [100, 100, 100, 100]  10,000 × 10,000",
        "  d2 loss / dweights db        float64 [100, 100, 7]         10,000 × 7",
        "  result 763 MiB; a block takes about 19.1 MiB of memory and 3 Gflop",
    ]


@pytest.mark.parametrize(
    ("mode", "rows", "columns", "reason"),
    [
        ("reverse", 3, 1000, "reverse mode: fewer rows (3) than columns (1,000)"),
        ("reverse", 3, 3, "reverse mode: as many rows as columns (3)"),
        ("reverse", 9, 3, "reverse mode: asked for"),
        ("forward", 2000, 4, "forward mode: fewer columns (8) than rows (2,000)"),
        ("forward", 3, 3, "forward mode: asked for, or the graph has no reverse mode"),
    ],
)
def test_a_plan_says_why_its_mode_was_chosen(mode, rows, columns, reason):
    inputs = ("a", "b") if mode == "forward" else ("a",)
    entries = tuple(gw.Entry("y", (rows,), one, (columns,), FLOAT64) for one in inputs)
    plan = replace(SMALL, mode=mode, entries=entries)
    assert reason in str(plan).splitlines()[0] and reason in plan._repr_html_()


def test_of_many_matrices_the_first_are_listed():
    many = replace(SMALL, entries=SMALL.entries * 30)
    assert str(many).count("d y / d x") == 12
    assert "… and 18 more matrices" in str(many)
    assert len(_cells(many._repr_html_())) == 12 * 4
    assert "18 more matrices" in many._repr_html_()


def test_info_says_where_the_time_went():
    summary = gw.Summary(40, 1.2, 0.5, {"worker-1": 30, "worker-0": 10}, 2)
    text = str(gw.Info(LARGE, summary, 1.25, 1))
    assert text.startswith(str(LARGE))
    assert "took 1.25 s, 1.2 s of them on the server, 500 ms to compile" in text
    assert "worker-0 10, worker-1 30" in text
    assert "2 blocks computed again" in text
    assert "resumed 1 time" in text
    assert "took 3 ms" in str(gw.Info(SMALL, gw.Summary(1, 0.002), 0.003, 0))
    assert "again" not in str(gw.Info(SMALL, gw.Summary(1, 0.002), 0.003, 0))


def test_a_block_says_what_it_covers_without_its_numbers():
    piece = gw.Piece(0, "y", "x", slice(0, 10), slice(500, 1500), np.ones((10, 1000)))
    assert repr(gw.Block(3, (piece,), "worker-1", 0.0123)) == (
        "<Block 3 by worker-1 in 12.3 ms: <Piece of d y / d x [0:10, 500:1,500], float64>>"
    )


@pytest.fixture
def function():
    with gw.connect("127.0.0.1:1") as client:
        yield client.function(lambda x, w: np.sum(w * np.sin(x)), gw.spec((3, 2)), gw.spec(()))


def test_notebooks_show_a_function_by_its_signature(function):
    html = function.gradient(wrt="x")._repr_html_()
    assert _cells(html) == [
        *("input", "x", "float64[3, 2]"),
        *("input", "w", "float64[]"),
        *("output", "x.gradient", "float64[3, 2]"),
    ]
    assert "<b>Function" in html
    assert "| gradient" in html
    assert _cells(function.signature._repr_html_())[-1] == "float64[]"


def test_notebooks_show_plans_infos_and_graphs_as_tables():
    assert _cells(SMALL._repr_html_()) == ["d y / d x", "float64", "[2, 2, 2, 2]", "4 × 4"]
    info = gw.Info(SMALL, gw.Summary(1, 0.002, 0.0, {"server": 1}), 0.003, 0)
    assert "server 1" in info._repr_html_()
    graph = gw.GraphInfo("a" * 64, True, "Loop has no reverse mode", ("rounded",), 5, 1024, 21)
    assert {"5", "1,024", "21", "forward mode only"} <= set(_cells(graph._repr_html_()))
    assert "Loop has no reverse mode" in graph._repr_html_()
    assert "rounded" in graph._repr_html_()


def test_names_from_models_are_escaped_everywhere():
    plan = replace(SMALL, entries=(gw.Entry(EVIL, (2,), EVIL, (2,), FLOAT64),))
    signature = gw.Signature((gw.Value(EVIL, FLOAT64, (EVIL, None)),), ())
    graph = gw.GraphInfo("a", False, EVIL, (EVIL,), 1, 1, 21)
    info = gw.Info(plan, gw.Summary(1, 0.1, 0.0, {EVIL: 1}), 0.1, 0)
    for shown in (plan, signature, graph, info):
        assert "<img" not in shown._repr_html_()
        assert "&lt;img" in shown._repr_html_()
    assert "<img" not in html_table(EVIL, [EVIL], [[EVIL]], [EVIL])
