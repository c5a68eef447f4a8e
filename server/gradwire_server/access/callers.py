"""Admits calls: who makes one, as its token or its certificate says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gradwire_server.access.tokens import COMPUTE, SCOPES, Token, TokenError, TokenSet, read_tokens
from gradwire_server.errors import Forbidden, Unauthenticated

AUTHORIZATION = "authorization"
_BEARER = "bearer "
_COMMON_NAME = "x509_common_name"
_LOOK_SECONDS = 1.0
_log = structlog.get_logger()

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Caller:
    """Who makes a call.

    Attributes:
        tenant: whose graphs and arrays it may use; "" on a server that asks for no token.
        name: of the token or certificate, for logs; "" for none.
        scopes: what it may do.
        calls, held_bytes: limits of its tenant, None for the server's settings.
    """

    tenant: str = ""
    name: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    calls: int | None = None
    held_bytes: int | None = None

    def require(self, scope: str) -> None:
        """Check that the caller may do what a scope allows; raises `Forbidden`."""
        if scope not in self.scopes:
            raise Forbidden(f"the token {self.name} allows {', '.join(sorted(self.scopes))}, not {scope}")


ANYONE = Caller()
"""The caller on a server that asks nobody who they are."""


class TokenFile:
    """A file of tokens that is read again when it has changed."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
            TokenError: it is not valid.
        """
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._stamp = self._stamped()
        self._tokens = read_tokens(path)

    def tokens(self) -> TokenSet:
        """Return the tokens, at most a second old; those from before where the file is no longer valid."""
        if self._clock() >= self._looked + _LOOK_SECONDS:
            self._looked = self._clock()
            if self._stamped() != self._stamp:
                self.reload()
        return self._tokens

    def reload(self) -> None:
        """Read the file now; keep the tokens from before, with an error in the log, where it is not valid."""
        self._stamp = self._stamped()
        try:
            self._tokens = read_tokens(self._path)
        except TokenError as error:
            _log.error("the tokens of before stay valid", reason=str(error))
            return
        _log.info("tokens read", file=str(self._path), tokens=len(self._tokens.tokens))

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class Access:
    """Says who makes a call, by the token in its metadata or the certificate of its connection."""

    def __init__(self, tokens: TokenFile | None, certificates: bool = False) -> None:
        """Ask for tokens of a file, for certificates, for both or for nothing.

        Args:
            tokens: those that are let in; None where no token is asked for.
            certificates: whether connections have a client's certificate. Its common name is the tenant where
                no token is asked for.
        """
        self._tokens = tokens
        self._certificates = certificates

    @property
    def wants_tokens(self) -> bool:
        """Whether calls have to show a token."""
        return self._tokens is not None

    def reload(self) -> None:
        """Read the file of tokens again."""
        if self._tokens is not None:
            self._tokens.reload()

    def caller(
        self, metadata: Metadata, connection: Mapping[str, Iterable[bytes]], scope: str = COMPUTE
    ) -> Caller:
        """Return who makes a call.

        Args:
            metadata: of the call.
            connection: gRPC's facts on the connection (`auth_context`).
            scope: what the call needs.

        Raises:
            Unauthenticated: there is no token, or it is unknown or has expired.
            Forbidden: it does not allow this.
        """
        if self._tokens is None:
            if not self._certificates:
                return ANYONE
            names = [name.decode(errors="replace") for name in connection.get(_COMMON_NAME, ())]
            if not names or not names[0]:
                raise Unauthenticated(
                    "the certificate of this connection has no common name: it is the tenant"
                )
            caller = Caller(names[0], names[0], frozenset({COMPUTE}))
            caller.require(scope)
            return caller
        tokens = self._tokens.tokens()
        caller = _of(_token(tokens, metadata), tokens)
        caller.require(scope)
        return caller


def _token(tokens: TokenSet, metadata: Metadata) -> Token:
    shown = [value for key, value in metadata if key == AUTHORIZATION]
    if not shown:
        raise Unauthenticated(
            "this server asks for a token: send it as metadata, authorization: Bearer TOKEN "
            "(in Python, gw.connect(address, token=...), or the variable GRADWIRE_TOKEN)"
        )
    text = shown[0] if isinstance(shown[0], str) else shown[0].decode(errors="replace")
    if len(shown) > 1 or not text.lower().startswith(_BEARER):
        raise Unauthenticated("the metadata has one authorization, of the form: Bearer TOKEN")
    token = tokens.find(text[len(_BEARER) :].strip())
    if token is None:
        raise Unauthenticated("this token is unknown here: it may be of another server, or revoked")
    if not token.is_current(datetime.now(UTC)):
        raise Unauthenticated(f"the token {token.name} expired on {token.expires:%Y-%m-%d at %H:%M UTC}")
    return token


def _of(token: Token, tokens: TokenSet) -> Caller:
    """Return who shows a token; a tenant's limits are the least of those that its tokens have."""
    own = [other for other in tokens.tokens if other.tenant == token.tenant]
    calls = min((other.calls for other in own if other.calls is not None), default=None)
    held = min((other.held_bytes for other in own if other.held_bytes is not None), default=None)
    return Caller(token.tenant, token.name, frozenset(token.scopes), calls, held)
