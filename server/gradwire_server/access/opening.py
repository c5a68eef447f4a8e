"""Decides, from its settings, whom a server lets in, and whether it may start like that."""

from __future__ import annotations

import structlog

from gradwire_server.access.callers import Access, TokenFile
from gradwire_server.access.exposure import refusal, warning
from gradwire_server.access.tls import CertificateFiles, Certificates
from gradwire_server.settings import Settings

_log = structlog.get_logger()


class Exposed(ValueError):
    """The server would send secrets over a network in plain text; the message says what to set."""


def access_of(settings: Settings) -> tuple[Access, Certificates | None]:
    """Return whom a server lets in, and its certificates; None for plain text.

    Raises:
        TokenError, CertificateError: a file is not valid.
        Exposed: tokens would travel in plain text over a network.
    """
    files = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    tokens = settings.token_file is not None
    reason = refusal(settings.host, files is not None, tokens, settings.plain_text_tokens)
    if reason is None and settings.admin_port is not None:
        reason = refusal(settings.admin_host, False, tokens, settings.plain_text_tokens)
    if reason:
        raise Exposed(reason)
    certificates = Certificates(files) if files else None
    access = Access(
        TokenFile(settings.token_file) if settings.token_file else None, settings.tls_client_ca is not None
    )
    text = warning(settings.host, tokens, settings.tls_client_ca is not None)
    if text is None and settings.admin_port is not None:
        text = warning(settings.admin_host, tokens, False)
    if text:
        _log.warning(text)
    return access, certificates
