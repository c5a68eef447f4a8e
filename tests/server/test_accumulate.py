"""Accumulate over the wire: numbers, protocol, refusals."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from gradwire import wire
from gradwire.v1 import accumulate_pb2, function_pb2
from server import calls
from server.accumulations import (
    LOGISTIC,
    MEAN,
    READ,
    ZERO,
    Request,
    Stream,
    accumulate,
    announced,
    batch,
    batches,
    chunk,
    chunked,
    logistic,
    refused,
    rows,
    start,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def graph_id(channel: grpc.Channel) -> str:
    """Logistic regression, summed over rows."""
    return calls.register(channel, LOGISTIC).graph_id


class TestNumbers:
    def test_the_sum_over_batches_is_the_gradient_over_all_rows(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(1037, 6)
        found = accumulate(channel, [start(graph_id, {"w": w}), *batches(X, y, 100)])
        loss, gradient = logistic(w, X, y)
        assert list(found.arrays) == ["loss", "w.gradient"]
        assert found.arrays["loss"].shape == ()
        np.testing.assert_allclose(found.arrays["loss"], loss, rtol=1e-13)
        np.testing.assert_allclose(found.arrays["w.gradient"], gradient, rtol=1e-12)
        message = found.message
        assert (message.batches, message.rows, message.batches_rerun) == (11, 1037, 0)
        assert sum(message.batches_by_worker.values()) == 11
        assert message.compute.ToNanoseconds() > 0
