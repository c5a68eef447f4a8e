"""Transport security: the server's certificate, and those of clients, read again while it serves."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

_log = structlog.get_logger()


class CertificateError(ValueError):
    """A certificate or key cannot be used; the message names the file."""


@dataclass(frozen=True)
class CertificateFiles:
    """Where the certificates are, in PEM.

    Attributes:
        certificate: of the server, with those that lead to the root.
        key: its private key.
        client_ca: roots of clients' certificates, which are then required; None where they are not.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


class Certificates:
    """Certificates as gRPC takes them: new ones serve from the next connection on, invalid ones never."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files.

        Raises:
            CertificateError: one cannot be read, or is not what it should be.
        """
        self._files = files
        self._stamp = self._stamped()
        self._first = _configuration(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a port."""
        fetch: Any = self._changed  # None keeps the certificate in use, which the type stubs do not know
        return grpc.dynamic_ssl_server_credentials(
            self._first, fetch, require_client_authentication=self._files.client_ca is not None
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates if the files have changed; gRPC asks for every connection, in a thread."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            configuration = _configuration(self._files)
        except CertificateError as error:
            _log.error("the certificate of before stays in use", reason=str(error))
            return None
        _log.info("certificate read", file=str(self._files.certificate))
        return configuration

    def _stamped(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(path) for path in self._files.paths)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _configuration(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    certificate, key = _pem(files.certificate, "CERTIFICATE"), _pem(files.key, "PRIVATE KEY")
    _check_pair(files)
    roots = _pem(files.client_ca, "CERTIFICATE") if files.client_ca else None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)


def _pem(path: Path, kind: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data or f"{kind}-----".encode() not in data:
        raise CertificateError(f"{path} is no PEM file with a {kind.lower()}")
    return data


def _check_pair(files: CertificateFiles) -> None:
    """Load the pair: gRPC would take any text, and fail each connection.

    Raises:
        CertificateError: the key is not that of the certificate, or one is damaged.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
        if files.client_ca:
            context.load_verify_locations(files.client_ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CertificateError(
            f"{files.certificate} and {files.key} do not go together, or one is damaged: {reason}"
        ) from None
