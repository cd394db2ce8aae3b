"""Certificates for an origin that speaks TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["TlsFiles", "server_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """
    Where an origin's certificate is.

    Args:
        cert_file: The certificate chain, PEM.
        key_file: Its private key, PEM.
        ca_file: The certificate of whoever signed it, PEM: what a client must trust.
            The origin only hands it on.
    """

    cert_file: str
    key_file: str
    ca_file: str | None = None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """
    Make the server's side of TLS 1.2 and 1.3.

    Args:
        files: The certificate.
    """
    import ssl  # not loaded for the plain origin

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.cert_file, files.key_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
