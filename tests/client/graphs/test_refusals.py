"""Errors of building a graph: whose line they blame."""

from __future__ import annotations

from typing import Any

import pytest

from gradwire import TraceError, spec
from gradwire.frontends.numpy import trace


def test_what_the_builder_refuses_is_blamed_on_the_users_line() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x) or x, [spec(3)])  # type: ignore[func-returns-value]
    with pytest.raises(TraceError, match=r"test_refusals\.py:\d+: trace\(lambda x: x \+ kept"):
        trace(lambda x: x + kept[0], [spec(3)])
