"""Tokens: what a client shows, and the file in which a server keeps their hashes.

A token is "gw_", eight hexadecimal digits that name it, "_", and 256 random bits. Its file has the SHA-256 of
those bits: a value of so many random bits cannot be guessed from a hash, however fast the hash is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

COMPUTE = "compute"
ADMIN = "admin"
SCOPES = {
    COMPUTE: "register graphs, upload arrays, evaluate and differentiate",
    ADMIN: "see the server's state, and that of all tenants",
}

_TOKEN = re.compile(r"gw_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_AGE = re.compile(r"(\d{1,6})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class TokenError(ValueError):
    """A token, or the file of tokens, is not valid; the message says what to change."""


@dataclass(frozen=True)
class Token:
    """What a server keeps of a token.

    Attributes:
        id: eight hexadecimal digits, which the token begins with.
        name: of the token, for people; unique in a file.
        tenant: whose graphs, arrays and shares it gives access to; several tokens may have one.
        scopes: what it allows, of `SCOPES`.
        hash: hexadecimal SHA-256 of its secret part.
        created: when it was made, in UTC.
        expires: from when on it is refused; None for never.
        calls: calls and streams that its tenant may have open at once; None for the server's setting.
        held_bytes: bytes that its tenant may have the server hold; None for the server's setting.
    """

    id: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    hash: str
    created: datetime
    expires: datetime | None = None
    calls: int | None = None
    held_bytes: int | None = None

    def is_current(self, now: datetime) -> bool:
        """Tell whether the token has not expired."""
        return self.expires is None or now < self.expires


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one file."""

    tokens: tuple[Token, ...] = ()

    def find(self, text: str) -> Token | None:
        """Return the token that a client showed, or None where there is none such.

        Expired ones are found too. Secrets are compared in constant time.
        """
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        shown = hashlib.sha256(match[2].encode()).hexdigest()
        found = next((token for token in self.tokens if token.id == match[1]), None)
        return found if found is not None and hmac.compare_digest(found.hash, shown) else None

    def named(self, name: str) -> Token:
        """Return the token of this name or id.

        Raises:
            TokenError: there is none.
        """
        found = [token for token in self.tokens if name in (token.name, token.id)]
        if not found:
            known = ", ".join(token.name for token in self.tokens) or "none"
            raise TokenError(f"there is no token {name!r}; the file has: {known}")
        return found[0]

    def added(self, token: Token) -> TokenSet:
        """Return the set with one more token.

        Raises:
            TokenError: the name is taken.
        """
        if any(token.name == other.name for other in self.tokens):
            raise TokenError(f"there is a token called {token.name!r} already: revoke it, or choose a name")
        return replace(self, tokens=(*self.tokens, token))

    def without(self, name: str) -> TokenSet:
        """Return the set without the token of this name or id.

        Raises:
            TokenError: there is none.
        """
        gone = self.named(name)
        return replace(self, tokens=tuple(token for token in self.tokens if token is not gone))


def new_token(
    name: str,
    tenant: str = "",
    scopes: Iterable[str] = (COMPUTE,),
    age: str = "",
    calls: int | None = None,
    held_bytes: int | None = None,
) -> tuple[Token, str]:
    """Make a token; return what a server keeps of it, and the text that a client shows.

    Args:
        name: of the token, for people.
        tenant: whose it is; its name by default.
        scopes: what it allows.
        age: how long it is valid, such as "12h", "90d" or "4w"; empty for ever.
        calls, held_bytes: limits of its tenant, see `Token`.

    Raises:
        TokenError: an argument is not valid.
    """
    identifier, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    token = Token(
        identifier,
        name,
        tenant or name,
        tuple(scopes),
        hashlib.sha256(secret.encode()).hexdigest(),
        now,
        now + _duration(age) if age else None,
        calls,
        held_bytes,
    )
    _check(token)
    return token, f"gw_{identifier}_{secret}"


def _duration(age: str) -> timedelta:
    match = _AGE.fullmatch(age)
    if match is None or not int(match[1]):
        raise TokenError(f"{age!r} is no time to be valid for: write 12h, 90d or 4w")
    return int(match[1]) * _UNITS[match[2]]


def _check(token: Token) -> None:
    for what, text in (("name", token.name), ("tenant", token.tenant)):
        if not _NAME.fullmatch(text):
            raise TokenError(
                f"{text!r} is no {what}: up to 64 letters, digits and ._@-, the first a letter or digit"
            )
    unknown = [scope for scope in token.scopes if scope not in SCOPES]
    if unknown or not token.scopes:
        raise TokenError(f"{unknown[0] if unknown else ''!r} is no scope: {' or '.join(SCOPES)}")
    for what, limit in (("calls", token.calls), ("bytes", token.held_bytes)):
        if limit is not None and limit < 1:
            raise TokenError(f"the limit of {what} is {limit}: it is a positive number")


def read_tokens(path: Path) -> TokenSet:
    """Read a file of tokens.

    Raises:
        TokenError: it is absent or not valid, or others than its owner may write to it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TokenError(f"the tokens in {path} cannot be read: {reason}") from None
    if mode & 0o022:
        raise TokenError(f"others may write to {path}, and so let themselves in: chmod 600 {path}")
    try:
        entries = json.loads(text)["tokens"]
        tokens = tuple(_from_entry(entry) for entry in entries)
        for token in tokens:
            _check(token)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenError(
            f"{path} is no file of tokens ({type(error).__name__}: {error}): "
            "make it with `gradwire token new`"
        ) from None
    if len({token.id for token in tokens}) < len(tokens) or len({t.name for t in tokens}) < len(tokens):
        raise TokenError(f"{path} has two tokens of one name or id")
    return TokenSet(tokens)


def _from_entry(entry: Mapping[str, Any]) -> Token:
    values = dict(entry)
    for key in ("created", "expires"):
        if values.get(key) is not None:
            values[key] = datetime.fromisoformat(values[key])
            if values[key].tzinfo is None:
                raise ValueError(f"{key} has no time zone")
    values["scopes"] = tuple(values["scopes"])
    if not re.fullmatch(r"[0-9a-f]{8}", values["id"]) or not re.fullmatch(r"[0-9a-f]{64}", values["hash"]):
        raise ValueError("an id has eight hexadecimal digits, a hash 64")
    return Token(**values)


def write_tokens(path: Path, tokens: TokenSet) -> None:
    """Write a file of tokens that only this user may read; a server that reads it sees all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    entries = []
    for token in tokens.tokens:
        entry: dict[str, Any] = {name: value for name, value in asdict(token).items() if value is not None}
        for key in ("created", "expires"):
            if key in entry:
                entry[key] = entry[key].isoformat()
        entries.append(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"tokens": entries}, file, indent=2)
            file.write("\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
