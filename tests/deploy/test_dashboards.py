"""Dashboard and alert rules: they ask for metrics and labels that a server has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradwire_server.observe.events import (
    BlockSent,
    BytesReceived,
    BytesSent,
    CallBegun,
    CallEnded,
    Looked,
    Request,
    TaskBegun,
    TaskEnded,
    WorkerGone,
    WorkerReady,
)
from gradwire_server.observe.metrics import Metrics
from gradwire_server.observe.readings import Held, Reading

OBSERVE = Path(__file__).parents[2] / "deploy" / "observe"

OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that every series of a scrape has, or every bucket."""


def labels_of_a_server() -> dict[str, set[str]]:
    """The labels of each series, after one event of each kind."""
    metrics = Metrics(lambda: Reading(True, 1, 0, {"graphs": Held(1, 2)}, 3), "1.0")
    request = Request("1", "Evaluate", "alice")
    for event in (
        CallBegun(request=request),
        BytesReceived(1, request=request),
        BytesSent(1, request=request),
        TaskBegun(1, "evaluate", "w", 0.1, request=request),
        TaskEnded(1, "evaluate", "w", 0.1, "done", request=request),
        BlockSent(0, "w", 0.1, request=request),
        WorkerReady("w", 1.0),
        WorkerGone("w", "died"),
        Looked("kernels", "disk"),
        CallEnded("Evaluate", "OK", 0.1, request=request),
    ):
        metrics.count(event)
    found: dict[str, set[str]] = {}
    for line in metrics.text().decode().splitlines():
        match = re.match(r"(\w+)(?:\{(.*?)\})? ", line)
        if match and not line.startswith("#"):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


def expressions() -> Iterator[Any]:
    dashboard = json.loads((OBSERVE / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for group in yaml.safe_load((OBSERVE / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield pytest.param(rule["expr"], id=rule["alert"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_asks_for_series_and_labels_that_exist(expression: str) -> None:
    known = labels_of_a_server()
    asked = re.findall(r"(gradwire_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for series, selectors in asked:
        assert series in known, f"no server has {series}"
        for label in re.findall(r"(\w+)\s*(?:=~|!=|=)", selectors):
            assert label in known[series] | OF_PROMETHEUS, f"{series} has no label {label}"
    grouped = {
        label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", labels)
    }
    every = set().union(*(known[series] for series, _ in asked))
    assert grouped <= every | OF_PROMETHEUS


def test_every_metric_of_a_server_is_on_the_dashboard() -> None:
    text = (OBSERVE / "dashboard.json").read_text()
    unseen = {
        name
        for name in labels_of_a_server()
        if not name.endswith(("_created", "_sum", "_count")) and name not in text
    }
    assert unseen == {
        "gradwire_block_seconds_bucket",
        "gradwire_task_seconds_bucket",
        "gradwire_tasks_total",
        "gradwire_worker_start_seconds_bucket",
    }, "put it on the dashboard, or here"


def test_every_metric_of_a_server_is_in_the_documentation() -> None:
    page = (OBSERVE.parents[1] / "docs" / "observing.md").read_text()
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in labels_of_a_server()}
    assert {name for name in families if f"`{name}`" not in page and f"`{name}_total`" not in page} == set()


def test_panels_do_not_lie_on_one_another() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in json.loads((OBSERVE / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen, panel["title"]
        seen |= cells
