"""Fixtures over the embedded origin, for any project that downloads.

    def test_resumes_after_a_reset(segdl_origin):
        url = segdl_origin.blob_url(1, 1 << 20, f="rst@byte4096")
        assert my_download(url) == segdl_origin.blob(1, 1 << 20).read()

| fixture | gives |
|---|---|
| `segdl_origin` | a running origin with an empty log |
| `segdl_origin_tls` | the same with TLS; a client must trust its `ca_file` |
| `segdl_origin_factory` | a function that starts one more, with `Origin`'s arguments |
| `segdl_tls_files` | a certificate for 127.0.0.1, ::1 and localhost |

Each pytest run where segdl is installed imports this module, so that it imports nothing
of the origin until a fixture is used, and itself nothing of the downloader ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from segdl.testing.origin import Origin
    from segdl.testing.tls import TlsFiles


@pytest.fixture
def segdl_origin_factory() -> Iterator[Callable[..., Origin]]:
    """Give a function that starts an origin; all are stopped after the test."""
    from segdl.testing.origin import Origin

    with ExitStack() as stack:

        def start(**arguments: Any) -> Origin:
            return stack.enter_context(Origin(**arguments))

        yield start


@pytest.fixture
def segdl_origin(segdl_origin_factory: Callable[..., Origin]) -> Origin:
    """Give a running origin with an empty log."""
    return segdl_origin_factory()


@pytest.fixture(scope="session")
def segdl_tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Give a certificate for 127.0.0.1, ::1 and localhost, with its CA."""
    trustme = pytest.importorskip(
        "trustme", reason="trustme is not installed; it makes the certificate"
    )
    from segdl.testing.tls import TlsFiles

    directory = tmp_path_factory.mktemp("segdl-tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "::1", "localhost")
    files = {name: str(directory / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate.private_key_pem.write_to_path(files["key"])
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(files["cert"], append=True)
    return TlsFiles(cert_file=files["cert"], key_file=files["key"], ca_file=files["ca"])


@pytest.fixture
def segdl_origin_tls(
    segdl_origin_factory: Callable[..., Origin], segdl_tls_files: TlsFiles
) -> Origin:
    """Give a running origin that speaks TLS, with an empty log."""
    return segdl_origin_factory(tls=segdl_tls_files)
