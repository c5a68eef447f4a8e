"""The client that functions of `gradwire.torch` use where none is given."""

from __future__ import annotations

from contextlib import AbstractContextManager

from gradwire._sync.client import Client
from gradwire.frontends.default_client import DefaultClient

_default = DefaultClient("gradwire.torch")


def use(client: Client | None) -> AbstractContextManager[None]:
    """Make a client the default of every function in `gradwire.torch`.

    As a statement it holds from now on, as a context manager until the end of the block:

        gradwire.torch.use(client)
        with gradwire.torch.use(client): ...
    """
    return _default.use(client)


def client_or_default(client: Client | None) -> Client:
    """Return the client given, or else the default.

    Raises:
        GradwireError: there is neither.
    """
    return _default.or_given(client)
