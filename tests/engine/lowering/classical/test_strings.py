"""Strings, patterns and n-grams, which are static except for integer tokens."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.errors import EngineError, InvalidGraph, LimitExceeded
from gradwire_engine.graphs.graph import parse
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import one_node


def texts(*items: Any) -> np.ndarray[Any, Any]:
    return np.array(items, object)


def call(op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
    model = one_node(op, *inputs, outputs=outputs, **attributes)
    results = evaluate(model, {f"x{k}": value for k, value in enumerate(inputs)})
    return results if outputs > 1 else results[0]


def test_strings_are_concatenated_with_broadcasting() -> None:
    joined = call("StringConcat", texts(["a"], ["b"]), texts("x", "", "é"))
    assert joined.tolist() == [["ax", "a", "aé"], ["bx", "b", "bé"]]


def test_strings_that_double_are_refused_before_they_fill_the_memory() -> None:
    # The array is small, and its elements share one string: the concatenation makes the bytes.
    wide = np.full(2**10, "x" * 2**10, object)
    model = one_node("StringConcat", wide, wide)
    with pytest.raises(LimitExceeded, match=r"StringConcat.*strings of 2097152 bytes"):
        evaluate(model, {"x0": wide, "x1": wide}, Limits(array_bytes=2**20))


def test_splitting_pads_with_empty_strings_and_counts_the_pieces() -> None:
    pieces, counts = call("StringSplit", texts("a,b,,c", "", "d"), outputs=2, delimiter=",")
    assert pieces.tolist() == [["a", "b", "", "c"], ["", "", "", ""], ["d", "", "", ""]]
    assert counts.tolist() == [4, 1, 1] and counts.dtype == np.int64


def test_splitting_at_white_space_groups_it_and_stops_at_maxsplit() -> None:
    pieces, counts = call("StringSplit", texts("  a  b c ", ""), outputs=2, delimiter="", maxsplit=1)
    assert pieces.tolist() == [["a", "b c "], ["", ""]] and counts.tolist() == [2, 0]


def test_stop_words_are_compared_before_the_case_changes() -> None:
    words = texts("Monday", "monday", "Friday")
    keep = call(
        "StringNormalizer", words, stopwords=["monday"], is_case_sensitive=1, case_change_action="UPPER"
    )
    assert keep.tolist() == ["MONDAY", "FRIDAY"]
    keep = call("StringNormalizer", words, stopwords=["MONDAY"], is_case_sensitive=0)
    assert keep.tolist() == ["Friday"]


def test_a_row_without_words_left_is_one_empty_string() -> None:
    assert call("StringNormalizer", texts(["a"]), stopwords=["a"]).tolist() == [[""]]
    assert call("StringNormalizer", texts("a"), stopwords=["a"]).tolist() == [""]
    with pytest.raises(EngineError, match=r"StringNormalizer.*\[2, 1\]"):
        call("StringNormalizer", texts(["a"], ["b"]))


def test_a_pattern_has_to_match_the_whole_text() -> None:
    found = call("RegexFullMatch", texts(["ab1", "ab12"], ["", "xab1"]), pattern=r"[a-c]+\d")
    assert found.dtype == bool and found.tolist() == [[True, False], [False, False]]


PATTERNS = [
    "", "a", "a|b", "(a|b)*", "a*b+a?", "(?:ab|a)(?:bc|c)?", "[^a]b", "a{2,3}", "(?:a|b){2}c*", "^a$",
    "a$|^b",     r"\bab\b.*", r".*\Bb", r"[\w-]+", r"\W|\d+", "(?i)aB", "(?s).*", ".*", "(?m)a$.^b", "(a*)*b",
    "(?i:a)b", "a*[ab]*-", "a??b", "(?:(?:a?){3}b){2}", "[ab-]*", r"\x61+", "(?:a*)+", "(?:a|b|ab)*c",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(text=st.text("abAB c1-\n", max_size=7))
def test_patterns_match_what_pythons_own_engine_matches(pattern: str, text: str) -> None:
    # Python's $ also stands before a last newline, RE2's does not: no difference to these patterns.
    expected = bool(re.compile(pattern, re.ASCII).fullmatch(text))
    assert call("RegexFullMatch", texts(text), pattern=pattern).tolist() == [expected]


def test_patterns_are_read_as_re2_reads_them() -> None:
    words = texts("straße", "42", "a\n")
    assert call("RegexFullMatch", words, pattern=r"\pL+").tolist() == [True, False, False]
    assert call("RegexFullMatch", words, pattern="[[:digit:]]+").tolist() == [False, True, False]
    assert call("RegexFullMatch", words, pattern="a$").tolist() == [False, False, False]


def test_a_pattern_that_makes_backtracking_explode_is_answered() -> None:
    long = texts("a" * 2000)
    assert call("RegexFullMatch", long, pattern="(a+)+b").tolist() == [False]
    assert call("RegexFullMatch", long, pattern="(a|a)*(a|a)*(a|a)*b").tolist() == [False]
    assert call("RegexFullMatch", texts("a" * 200_000), pattern="(?:ab?)*").tolist() == [True]


REFUSED = [r"(a)\1", "(?=a)a", "(?<!b)a", "(?>a)", "(", "a{3,1}", "(?:a{1000}){1000}"]


@pytest.mark.parametrize("pattern", REFUSED)
def test_patterns_that_re2_lacks_or_that_are_malformed_are_refused_by_name(pattern: str) -> None:
    with pytest.raises(EngineError, match="RegexFullMatch"):
        call("RegexFullMatch", texts("a"), pattern=pattern)


POOL = {
    "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
    "ngram_counts": [0, 4],
    "ngram_indexes": list(range(7)),
}


def brute_force(row: list[int], longest: int, skips: int, pool: list[int], starts: list[int]) -> list[float]:
    """Counts of a pool's n-grams by slicing."""
    bounds = [*starts, len(pool)]
    grams = [
        tuple(pool[i : i + size])
        for size in range(1, len(bounds))
        for i in range(bounds[size - 1], bounds[size], size)
    ]
    seen: Counter[tuple[int, ...]] = Counter()
    for size in range(1, longest + 1):
        for stride in range(1, skips + 2 if size > 1 else 2):
            for i in range(len(row) - (size - 1) * stride):
                seen[tuple(row[i : i + (size - 1) * stride + 1 : stride])] += 1
    return [float(seen[gram]) for gram in grams]


@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("longest", [1, 2])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_n_grams_are_counted_traced_as_static(skips: int, longest: int, kind: type) -> None:
    tokens = np.random.default_rng(skips).integers(1, 9, (3, 12)).astype(kind)
    model = one_node(
        "TfIdfVectorizer", tokens, mode="TF", min_gram_length=1, max_gram_length=longest,
        max_skip_count=skips, **POOL,
    )  # fmt: skip
    expected = np.array(
        [
            brute_force(row, longest, skips, POOL["pool_int64s"], POOL["ngram_counts"])
            for row in tokens.tolist()
        ]
    )
    # Other lengths are not counted.
    expected[:, 4:] *= longest > 1
    static = evaluate(model, {"x0": tokens})[0]
    traced = jax.jit(lambda x: evaluate(model, {"x0": x})[0])(tokens)
    assert isinstance(static, np.ndarray) and static.dtype == traced.dtype == np.float32
    np.testing.assert_array_equal(static, expected)
    np.testing.assert_array_equal(traced, expected)


def test_each_weight_belongs_to_its_n_gram_wherever_its_column_is() -> None:
    common: dict[str, Any] = {
        "pool_strings": ["a", "b"], "ngram_counts": [0], "ngram_indexes": [2, 0], "weights": [10.0, 0.5],
        "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0,
    }  # fmt: skip
    row = texts("a", "c", "a", "b")
    for mode, expected in {"TF": [1, 0, 2], "IDF": [0.5, 0, 10], "TFIDF": [0.5, 0, 20]}.items():
        np.testing.assert_array_equal(call("TfIdfVectorizer", row, mode=mode, **common), np.float32(expected))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "tf"},
        {"ngram_counts": [0, 3]},
        {"ngram_indexes": [0]},
        {"max_skip_count": 2**40},
        {"min_gram_length": 0},
    ],
)
def test_a_vectorizer_that_contradicts_itself_is_refused_by_name(wrong: dict[str, Any]) -> None:
    given = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0, **POOL, **wrong}
    with pytest.raises(EngineError, match="TfIdfVectorizer"):
        call("TfIdfVectorizer", np.arange(5), **given)


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        ([b"a", b"\xff"], "constant words holds a string that is not UTF-8"),
        ([b"a"], r"shape \[2\] holds 1 string"),
    ],
)
def test_constants_of_strings_that_cannot_be_read_are_refused_by_name(
    strings: list[bytes], message: str
) -> None:
    model = one_node("StringSplit", texts("a", "b"), outputs=2)
    del model.graph.input[:]
    constant = model.graph.initializer.add(name="words", data_type=onnx.TensorProto.STRING, dims=[2])
    constant.string_data.extend(strings)
    model.graph.node[0].input[:] = ["words"]
    with pytest.raises(InvalidGraph, match=message):
        parse(model.SerializeToString())


def test_an_attribute_that_is_no_text_is_refused_by_name() -> None:
    model = one_node("RegexFullMatch", texts("a"), pattern=b"\xff")
    with pytest.raises(InvalidGraph, match="attribute pattern holds a string that is not UTF-8"):
        parse(model.SerializeToString())
