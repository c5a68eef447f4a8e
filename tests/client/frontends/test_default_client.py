"""The client that a framework's functions use where none is named."""

from __future__ import annotations

from typing import Any

import pytest

import gradwire as gw
from gradwire.frontends.default_client import DefaultClient


@pytest.mark.parametrize("wrong", ["127.0.0.1:50051", 5, lambda: None])
def test_what_is_no_client_is_refused_where_it_is_given(wrong: Any) -> None:
    default = DefaultClient("gradwire.torch")
    for give in (default.use, default.or_given):
        with pytest.raises(gw.InvalidArgumentError, match=r"gradwire\.torch takes a client.*gw\.connect"):
            give(wrong)


def test_without_a_client_the_message_says_how_to_name_one() -> None:
    with pytest.raises(gw.GradwireError, match=r"gradwire\.jax\.use\(client\)"):
        DefaultClient("gradwire.jax").or_given(None)


def test_a_client_is_the_default_until_the_end_of_the_block(client: gw.Client) -> None:
    default = DefaultClient("gradwire.torch")
    with default.use(client):
        assert default.or_given(None) is client
    with pytest.raises(gw.GradwireError):
        default.or_given(None)
