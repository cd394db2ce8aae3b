"""Certificates are checked, always (matrix rows 16 and 17)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from http_checks import MIB, check_failed, check_whole, names

from segdl.errors import TlsError
from segdl.testing import TlsFiles

trustme = pytest.importorskip("trustme", reason="it makes the certificates")

SIZE = 20 * MIB + 5


@pytest.fixture
def certified(segdl_origin_factory, tmp_path):
    """Give a function that starts an origin with a certificate of its own."""

    def start(*names_: str, **options: object):
        authority = trustme.CA()
        certificate = authority.issue_cert(*names_, **options)
        files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "crt", "key")}
        authority.cert_pem.write_to_path(files["ca"])
        certificate.private_key_pem.write_to_path(files["key"])
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(files["crt"], append=True)
        tls = TlsFiles(
            cert_file=files["crt"], key_file=files["key"], ca_file=files["ca"]
        )
        return segdl_origin_factory(tls=tls)

    return start


@pytest.mark.parametrize("processes", [0, 1])
def test_trusted_certificate(tls_origin, fetch, processes) -> None:
    """With its authority as ca_file, a private server's file comes down."""
    task = fetch(
        tls_origin.blob_url(1, SIZE), ca_file=tls_origin.ca_file, processes=processes
    )
    check_whole(task, tls_origin.blob(1, SIZE))


def test_16_unknown_authority(tls_origin, fetch, out) -> None:
    """A certificate of an unknown authority is refused at once; ca_file is named."""
    task = fetch(tls_origin.blob_url(1, SIZE))
    check_failed(task, TlsError, "ca_file")
    assert tls_origin.log.entries == ()
    assert names(out) == []


def test_16_other_authority(tls_origin, certified, fetch) -> None:
    """One private authority does not speak for another one."""
    other = certified("127.0.0.1")
    task = fetch(tls_origin.blob_url(1, SIZE), ca_file=other.ca_file)
    check_failed(task, TlsError, "certificate")


def test_16_wrong_host(certified, fetch, out) -> None:
    """A certificate for another host is refused, though its authority is trusted."""
    origin = certified("segdl.example")
    task = fetch(origin.blob_url(1, SIZE), ca_file=origin.ca_file)
    check_failed(task, TlsError, "127.0.0.1")
    assert origin.log.entries == ()
    assert names(out) == []


def test_16_expired(certified, fetch) -> None:
    """A certificate whose time is over is refused."""
    now = datetime.now(timezone.utc)
    origin = certified(
        "127.0.0.1", not_before=now - timedelta(2), not_after=now - timedelta(1)
    )
    task = fetch(origin.blob_url(1, SIZE), ca_file=origin.ca_file)
    check_failed(task, TlsError, "expired")


def test_environment_names_the_authority(tls_origin, fetch, monkeypatch) -> None:
    """SSL_CERT_FILE is honoured, as in OpenSSL's and curl's programs."""
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)  # curl's own comes first
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_origin.ca_file))
    task = fetch(tls_origin.blob_url(1, SIZE))
    check_whole(task, tls_origin.blob(1, SIZE))
