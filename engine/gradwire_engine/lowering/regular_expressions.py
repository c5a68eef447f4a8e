"""Full matches of regular expressions in time that no pattern can blow up.

ONNX's RegexFullMatch is specified by RE2, whose time is linear in the text. Python's ``re`` backtracks:
a pattern of 20 bytes from a client could hold a worker for ever. Here an expression is a function from a
set of positions in the text to the set of positions that it can reach, and a set is the bits of one
integer: a character moves all positions at once with a mask and a shift, a repetition adds positions
until there are no new ones. What is left to multiply, repetitions in repetitions, has a limit. Python's
own parser reads the pattern; what RE2 does not have (references back, looking around, atomic groups) is
refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_SINGLE = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)

_NEGATED = {
    sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
    sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
    sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
}

_WORD = [(sre.CATEGORY, sre.CATEGORY_WORD)]

_ESCAPE = re.compile(r"\\(.)|\[\[:", re.DOTALL)

WORK = 5_000_000
"""Steps that one pattern may take over all of its texts: nested repetitions multiply."""


class UnsupportedPattern(ValueError):
    """The pattern is malformed, or uses what is not supported; the message says what."""


class FullMatch:
    """A pattern in RE2's syntax, ready to be held against texts.

    Character classes are ASCII's, ``$`` is the end of the text (not a newline before it), ``.`` is no
    newline unless the flag ``s`` is set: RE2's readings.

    Raises:
        UnsupportedPattern: the pattern is malformed, or asks for what RE2 does not have.
    """

    def __init__(self, pattern: str) -> None:
        self.steps = 0
        try:
            self._tree = parser.parse(_ESCAPE.sub(_translated, pattern), re.ASCII)
            self._flags = self._tree.state.flags
            _check(self._tree)
        except UnsupportedPattern:
            raise
        except (re.error, ValueError, OverflowError) as error:
            raise UnsupportedPattern(f"{pattern!r} is not a regular expression: {error}") from None
        except RecursionError:
            raise UnsupportedPattern("the pattern nests too deeply") from None

    def __call__(self, text: str) -> bool:
        """Whether the whole text matches.

        Raises:
            UnsupportedPattern: the search takes more than WORK steps.
        """
        reached = _Text(text, self).sequence(self._tree, 1, self._flags)
        return bool(reached >> len(text) & 1)

    def spend(self, steps: int) -> None:
        """Count work done, against the limit."""
        self.steps += steps
        if self.steps > WORK:
            raise UnsupportedPattern(
                f"matching the pattern takes more than {WORK} steps: make the texts shorter, "
                "or nest fewer repetitions"
            )


def _translated(escape: re.Match[str]) -> str:
    """An escape of RE2's as Python's parser has it."""
    if escape[1] is None or escape[1] in "pPQEC":
        raise UnsupportedPattern(f"{escape[0]!r} in a pattern is not supported")
    return r"\Z" if escape[1] == "z" else escape[0]


def _check(tree: Any) -> None:
    """Refuse what cannot be followed, before any text is seen."""
    for op, value in tree:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _check(value[2])
        elif op is sre.SUBPATTERN:
            _check(value[3])
        elif op is sre.BRANCH:
            for branch in value[1]:
                _check(branch)
        elif op not in _SINGLE and op is not sre.AT:
            raise UnsupportedPattern(
                f"{str(op).lower()} in a pattern is not supported: RE2, by which ONNX defines patterns, "
                "has no references back, no looking around and no atomic groups"
            )


class _Text:
    """A text, and the positions of the characters that each item of a pattern accepts."""

    def __init__(self, text: str, owner: FullMatch) -> None:
        self.text = text
        self.owner = owner
        self.end = 1 << len(text)
        self.cost = 1 + (len(text) >> 10)
        self.accepted: dict[tuple[Any, int, int], int] = {}

    def sequence(self, tree: Any, positions: int, flags: int) -> int:
        """Positions after the items of a sequence, from a set of positions before it."""
        for op, value in tree:
            if not positions:
                break
            positions = self.item(op, value, positions, flags)
        return positions

    def item(self, op: Any, value: Any, positions: int, flags: int) -> int:
        self.owner.spend(self.cost)
        if op in _SINGLE:
            return (positions & self.where(op, value, flags)) << 1
        if op is sre.AT:
            return positions & self.at(value, flags)
        if op is sre.BRANCH:
            reached = 0
            for branch in value[1]:
                reached |= self.sequence(branch, positions, flags)
            return reached
        if op is sre.SUBPATTERN:
            _, added, removed, tree = value
            return self.sequence(tree, positions, (flags | added) & ~removed)
        return self.repeat(value, positions, flags)

    def repeat(self, value: Any, positions: int, flags: int) -> int:
        least, most, tree = value
        for _ in range(least):
            before, positions = positions, self.sequence(tree, positions, flags)
            if positions == before:
                break
        if most is sre.MAXREPEAT and len(tree) == 1 and tree[0][0] in _SINGLE:
            # A carry runs through each stretch of accepted characters: all repetitions in one addition.
            self.owner.spend(self.cost)
            accepted = self.where(tree[0][0], tree[0][1], flags)
            return positions | (((positions & accepted) + accepted) ^ accepted)
        new, reached = positions, positions
        for _ in range(len(self.text) if most is sre.MAXREPEAT else min(most - least, len(self.text))):
            new = self.sequence(tree, new, flags) & ~reached
            if not new:
                break
            reached |= new
        return reached

    def where(self, op: Any, value: Any, flags: int) -> int:
        """The positions of the characters that a single-character item accepts."""
        key = op, value if isinstance(value, int) else id(value), flags
        if key not in self.accepted:
            self.owner.spend(1 + len(self.text) // 8)
            fits = {character: _accepts(op, value, character, flags) for character in set(self.text)}
            bits = "".join("1" if fits[character] else "0" for character in reversed(self.text))
            self.accepted[key] = int(bits or "0", 2)
        return self.accepted[key]

    def at(self, place: Any, flags: int) -> int:
        """The positions of an anchor."""
        newlines = self.where(sre.LITERAL, ord("\n"), 0) if flags & re.MULTILINE else 0
        if place is sre.AT_BEGINNING_STRING:
            return 1
        if place is sre.AT_BEGINNING:
            return 1 | newlines << 1
        if place is sre.AT_END_STRING:
            return self.end
        if place is sre.AT_END:
            return self.end | newlines
        words = self.where(sre.IN, _WORD, 0)
        boundaries = words ^ words << 1
        return boundaries if place is sre.AT_BOUNDARY else ~boundaries


def _accepts(op: Any, value: Any, character: str, flags: int) -> bool:
    if op is sre.ANY:
        return bool(flags & re.DOTALL) or character != "\n"
    cases = {character, character.lower(), character.upper()} if flags & re.IGNORECASE else {character}
    codes = [ord(case) for case in cases if len(case) == 1]
    if op is sre.IN:
        negated = value[0][0] is sre.NEGATE
        return _within(value[1:] if negated else value, codes) is not negated
    return (value in codes) is (op is sre.LITERAL)


def _within(items: Iterable[Any], codes: list[int]) -> bool:
    for kind, value in items:
        for code in codes:
            if kind is sre.LITERAL and code == value:
                return True
            if kind is sre.RANGE and value[0] <= code <= value[1]:
                return True
            if kind is sre.CATEGORY and _is_in(value, chr(code)):
                return True
    return False


def _is_in(category: Any, character: str) -> bool:
    if category in _NEGATED:
        return not _is_in(_NEGATED[category], character)
    if category is sre.CATEGORY_DIGIT:
        return "0" <= character <= "9"
    if category is sre.CATEGORY_SPACE:
        return character in "\t\n\f\r "
    return character == "_" or (character.isascii() and character.isalnum())
