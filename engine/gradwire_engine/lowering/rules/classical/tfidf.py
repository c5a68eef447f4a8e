"""TfIdfVectorizer: counts the n-grams of a pool in rows of tokens.

Integer tokens may be arguments of a kernel; strings are constants and are numbered first.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradwire_engine.lowering.registry import Node, Value, is_static, namespace, rule
from gradwire_engine.lowering.rules.classical.strings import refuse_above_limit, texts_of

MOST_SKIPS = 255
"""Largest `max_skip_count`: every skip costs a pass over the tokens."""

Array = np.ndarray[Any, Any]


class _Pool:
    """The n-grams of the pool as a tree (a trie), which all positions of all rows descend at once.

    From node `p` the token `t` leads to the node whose code, `p * tokens + t`, is found in the sorted
    `codes`. The root is node 0; -1 stands for all that is outside the tree.
    """

    def __init__(self, tokens: Array, starts: list[int]) -> None:
        self.vocabulary = np.unique(tokens)
        numbers = np.searchsorted(self.vocabulary, tokens).tolist()
        bounds = [*starts, len(numbers)]
        ngrams = [
            tuple(numbers[first : first + length])
            for length in range(1, len(bounds))
            for first in range(bounds[length - 1], bounds[length], length)
        ]
        places: dict[tuple[int, ...], int] = {(): 0}
        for ngram in ngrams:
            for size in range(1, len(ngram) + 1):
                places.setdefault(ngram[:size], len(places))
        width = len(self.vocabulary)
        steps = sorted(
            (places[path[:-1]] * width + path[-1], place) for path, place in places.items() if path
        )
        self.codes = np.array([code for code, _ in steps], np.int64)
        self.places = np.array([place for _, place in steps], np.int64)
        self.size = len(places)
        self.ends = np.array([places[ngram] for ngram in ngrams], np.int64)

    def numbered(self, tokens: Value) -> Value:
        """Return tokens as indices into the vocabulary, -1 where they are not in it."""
        xp = namespace(tokens)
        index = xp.clip(xp.searchsorted(self.vocabulary, tokens), 0, len(self.vocabulary) - 1)
        return xp.where(xp.asarray(self.vocabulary)[index] == tokens, index, -1)

    def walk(self, places: Value, numbers: Value) -> Value:
        """Return the nodes one token further down."""
        xp = namespace(numbers)
        codes = places * len(self.vocabulary) + numbers
        index = xp.clip(xp.searchsorted(self.codes, codes), 0, len(self.codes) - 1)
        known = (xp.asarray(self.codes)[index] == codes) & (places >= 0) & (numbers >= 0)
        return xp.where(known, xp.asarray(self.places)[index], -1)


def _pool(node: Node, tokens: Value) -> tuple[_Pool, Value]:
    """Return the pool, and the tokens as indices into its vocabulary."""
    words = node.attr("pool_strings")
    if words:
        tokens = texts_of(node, tokens, "the tokens")
        pool = np.array(words, object)
    else:
        pool = np.array(node.attr("pool_int64s", []), np.int64)
        if tokens.dtype.kind not in "iu":
            raise node.fail(f"the tokens are of type {tokens.dtype}; pool_int64s takes integers")
        tokens = tokens.astype(np.int64)
    starts = node.attr("ngram_counts", [])
    bounds = [*starts, len(pool)]
    lengths = enumerate(pairwise(bounds), start=1)
    if (
        not len(pool)
        or bounds[0]
        or any(end < start or (end - start) % size for size, (start, end) in lengths)
    ):
        raise node.fail(f"ngram_counts {starts} does not divide a pool of {len(pool)} tokens into n-grams")
    made = _Pool(pool, starts)
    return made, made.numbered(tokens)


def _summed(table: Value, columns: Value, values: Value) -> Value:
    """Add values to columns of a table, row by row; a column may occur more than once."""
    rows = np.arange(table.shape[0])[:, None]
    if not is_static(table, columns, values):
        return jnp.asarray(table).at[rows, columns].add(values)
    np.add.at(table, (rows, columns), values)
    return table


def _occurrences(node: Node, pool: _Pool, numbers: Value) -> Value:
    """Count for every row how often each node of the pool's tree is the end of an n-gram."""
    least, most = node.attr("min_gram_length", 1), node.attr("max_gram_length", 1)
    skips = node.attr("max_skip_count", 0)
    if not 0 < least <= most or not 0 <= skips <= MOST_SKIPS:
        raise node.fail(
            f"n-grams of {least} to {most} tokens with {skips} skips; lengths must be positive and ordered, "
            f"skips between 0 and {MOST_SKIPS}"
        )
    xp = namespace(numbers)
    rows, width = numbers.shape
    counts = xp.zeros((rows, pool.size + 1), np.int64)
    for length in range(least, min(most, len(node.attr("ngram_counts"))) + 1):
        for stride in range(1, skips + 2 if length > 1 else 2):
            positions = width - (length - 1) * stride
            if positions <= 0:
                break
            places = xp.zeros((rows, positions), np.int64)
            for step in range(length):
                places = pool.walk(places, numbers[:, step * stride : step * stride + positions])
            # Node -1 (outside the tree) counts in the last column, which is not read.
            counts = _summed(counts, places, 1)
    return counts


@rule("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(node: Node, tokens: Value) -> Value:
    """TfIdfVectorizer: counts (TF), presence times weight (IDF) or counts times weight (TFIDF), float32.

    The i-th weight and the i-th of `ngram_indexes` belong to the i-th n-gram of the pool. A unigram is
    counted once, whatever the skips.
    """
    mode, columns = node.attr("mode"), node.attr("ngram_indexes", [])
    if mode not in ("TF", "IDF", "TFIDF"):
        raise node.fail(f"mode is {mode!r}; it must be TF, IDF or TFIDF")
    if tokens.ndim not in (1, 2):
        raise node.fail(
            f"the tokens are of shape {list(tokens.shape)}; the shapes it takes are [C] and [N, C]"
        )
    pool, numbers = _pool(node, tokens)
    weights = np.array(node.attr("weights") or [1.0] * len(columns), np.float32)
    if not len(pool.ends) == len(columns) == len(weights) or min(columns) < 0:
        raise node.fail(
            f"{len(pool.ends)} n-grams in the pool, {len(columns)} ngram_indexes, {len(weights)} weights; "
            "there must be as many of each, and no negative index"
        )
    width = max(columns) + 1
    rows = numbers.reshape(-1, numbers.shape[-1])
    refuse_above_limit(node, 8 * rows.shape[0] * (width + pool.size))
    found = _occurrences(node, pool, rows)[:, pool.ends]
    xp = namespace(found)
    scaled = (found if mode == "TF" else (found if mode == "TFIDF" else found > 0) * weights).astype(
        np.float32
    )
    return _summed(xp.zeros((rows.shape[0], width), np.float32), np.array(columns), scaled).reshape(
        *tokens.shape[:-1], width
    )
