"""Results kept for a while: made once, dropped in the order in which they were last asked for."""

from __future__ import annotations

import pytest

from gradwire_engine.recent import Recent


@pytest.fixture
def made() -> list[str]:
    return []


def ask(recent: Recent[str], made: list[str], key: str) -> str:
    def make() -> str:
        made.append(key)
        return key * 2

    return recent.get(key, make)


def test_a_result_at_hand_is_not_made_again(made: list[str]) -> None:
    recent = Recent[str](100, len)
    assert [ask(recent, made, key) for key in ("a", "b", "a")] == ["aa", "bb", "aa"]
    assert made == ["a", "b"]


def test_the_one_asked_for_longest_ago_gives_way(made: list[str]) -> None:
    recent = Recent[str](4, len)
    for key in ("a", "b", "a", "c", "a", "b"):
        ask(recent, made, key)
    assert made == ["a", "b", "c", "b"]


def test_a_result_too_large_to_keep_is_made_each_time_and_drives_nothing_out(made: list[str]) -> None:
    recent = Recent[str](4, len)
    for key in ("a", "long", "long", "a"):
        ask(recent, made, key)
    assert made == ["a", "long", "long"]


def test_what_cannot_be_made_is_tried_again() -> None:
    recent = Recent[int](4, int)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 1) == 1
