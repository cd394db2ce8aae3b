"""Certificates are accepted when their authority is named; row 16 has the others."""

from __future__ import annotations

import pytest
from http_checks import MIB, check_whole

trustme = pytest.importorskip("trustme", reason="it makes the certificates")

SIZE = 20 * MIB + 5


@pytest.mark.parametrize("processes", [0, 1])
def test_trusted_certificate(tls_origin, fetch, processes) -> None:
    """With its authority as ca_file, a private server's file comes down."""
    task = fetch(
        tls_origin.blob_url(1, SIZE), ca_file=tls_origin.ca_file, processes=processes
    )
    check_whole(task, tls_origin.blob(1, SIZE))


def test_environment_names_the_authority(tls_origin, fetch, monkeypatch) -> None:
    """SSL_CERT_FILE is honoured, as in OpenSSL's and curl's programs."""
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)  # curl's own comes first
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_origin.ca_file))
    task = fetch(tls_origin.blob_url(1, SIZE))
    check_whole(task, tls_origin.blob(1, SIZE))
