"""Compares docs/operators.md with the registry."""

from __future__ import annotations

from tests.conformance.operators import PAGE, rows


def test_the_page_of_operators_is_current() -> None:
    lines = PAGE.read_text().splitlines()
    stale = [row for row in rows() if not any(line.startswith(str(row)) for line in lines)]
    assert not stale, f"make conformance writes the page again; it lacks {[row.op for row in stale]}"


def test_the_page_of_operators_names_nothing_that_is_gone() -> None:
    table = PAGE.read_text().partition("## From their function bodies")[0]
    listed = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    known = {(row.op, row.domain or "ai.onnx") for row in rows()}
    gone = [op.strip() for op, domain in listed if (op.strip(), domain.strip()) not in known]
    assert not gone, f"make conformance writes the page again; it still has {gone}"
