"""What may be open to which network: refuses tokens in plain text, and warns of a server open to all."""

from __future__ import annotations

from gradwire_wire.hosts import is_loopback


def refusal(host: str, tls: bool, tokens: bool, plain_text_tokens: bool) -> str | None:
    """Return why a server must not start like this; None where it may.

    Args:
        host: that it listens on.
        tls: whether connections are encrypted.
        tokens: whether clients show tokens.
        plain_text_tokens: whether tokens may travel unencrypted.
    """
    if tokens and not tls and not is_loopback(host) and not plain_text_tokens:
        return (
            f"tokens would travel in plain text to {host}: set tls-cert and tls-key, "
            "or plain-text-tokens where something in front of the server encrypts"
        )
    return None


def warning(host: str, tokens: bool, client_certificates: bool) -> str | None:
    """Return a warning where strangers can reach a server that asks nobody who they are; None elsewhere."""
    if is_loopback(host) or tokens or client_certificates:
        return None
    return (
        f"ANYONE WHO CAN REACH {host} MAY USE THIS SERVER: it asks for no token. "
        "A graph is a program, which runs in its workers. "
        "Make tokens with `gradwire token new` and name their file in token-file, or listen on 127.0.0.1."
    )
