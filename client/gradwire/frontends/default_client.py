"""The client that a front-end's functions use where none is given."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from gradwire.errors import GradwireError, InvalidArgumentError

if TYPE_CHECKING:
    from gradwire._sync.client import Client


class DefaultClient:
    """Holds the default client of one module, such as "gradwire.torch"."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._client: Client | None = None

    def use(self, client: Client | None) -> AbstractContextManager[None]:
        """Make a client the default from now on, or, as a context manager, until the end of the block.

        Raises:
            InvalidArgumentError: `client` is no client.
        """
        self._check(client)
        before, self._client = self._client, client
        return _Use(self, before)

    def or_given(self, client: Client | None) -> Client:
        """Return the client given, or else the default.

        Raises:
            GradwireError: there is neither.
            InvalidArgumentError: `client` is no client.
        """
        self._check(client)
        chosen = self._client if client is None else client
        if chosen is None:
            raise GradwireError(
                f"which server? Say {self._module}.use(client) once, or pass client= "
                "(a client comes from gw.local() or gw.connect('host:port'))"
            )
        return chosen

    def _check(self, client: object) -> None:
        if client is not None and not hasattr(client, "function"):
            raise InvalidArgumentError(
                f"{self._module} takes a client, as gw.local() or gw.connect('host:port') gives it, "
                f"not {client!r}"
            )


class _Use(AbstractContextManager[None]):
    def __init__(self, default: DefaultClient, before: Client | None) -> None:
        self._default, self._before = default, before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._default.use(self._before)
