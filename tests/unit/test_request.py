"""What a task asks for is checked before anything is done."""

from __future__ import annotations

import base64
import builtins
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from segdl._request import Request, checked_request
from segdl.config import EngineConfig
from segdl.errors import UsageError
from segdl.task import DownloadTask

URL = "https://example.org/a.bin"
SHA = "ab" * 32


def request_for(
    url: str = URL,
    filename: str | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Request:
    """Check a task's request with the default settings."""
    task = DownloadTask(url, "down/load", filename, headers)
    return checked_request(task, EngineConfig(), **options)


def test_a_plain_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL and a directory are enough; the directory does not move with a chdir."""
    monkeypatch.chdir(tmp_path)
    assert request_for() == Request(
        urls=(URL,),
        headers={},
        own_headers={},
        directory=str(tmp_path / "down" / "load"),
        filename=None,
        digest=None,
        on_exists="reuse",
        connections="auto",
    )


def test_a_full_request() -> None:
    """All that can be asked for is taken; a call's options beat the engine's."""
    request = request_for(
        URL,
        "b.bin",
        {"Authorization": "Bearer t"},
        checksum=f"SHA-256:{SHA.upper()}",
        mirrors=["https://mirror.example.net/a.bin"],
        on_exists="rename",
        connections=4,
        max_bytes=10,
    )
    assert request.urls == (URL, "https://mirror.example.net/a.bin")
    assert request.headers == {"Authorization": "Bearer t"}
    assert request.filename == "b.bin"
    assert str(request.digest) == f"sha256:{SHA}"
    assert (request.on_exists, request.connections) == ("rename", 4)
    assert request.max_bytes == 10


def test_a_current_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is refused when there is nothing it could be relative to."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="give an absolute path"):
        request_for()


def test_the_settings_of_the_engine() -> None:
    """What a call leaves open is the engine's."""
    config = EngineConfig(on_exists="error", connections=2, max_bytes=20)
    request = checked_request(DownloadTask(URL, "."), config)
    assert (request.on_exists, request.connections) == ("error", 2)
    assert request.max_bytes == 20


def test_a_user_in_the_url() -> None:
    """Userinfo becomes a header of the first URL, and is in no URL any more."""
    request = request_for("https://u%40x:p%3As@example.org/a.bin")
    token = base64.b64encode(b"u@x:p:s").decode()
    assert request.headers == {"Authorization": f"Basic {token}"}
    assert request.urls == (URL,)


def test_a_user_in_a_mirror() -> None:
    """A mirror gets no credentials, so one that has some is refused, not asked."""
    with pytest.raises(UsageError, match=r"example\.net/a has a user name") as caught:
        request_for(URL, mirrors=["https://name:s3cret@example.net/a"])
    assert "s3cret" not in str(caught.value)


def test_a_user_in_a_link_that_a_function_gives() -> None:
    """It goes for that link alone: the next one may be another origin's."""
    links = [
        "https://u:a@example.org/a",
        "https://b.example/a",
        "https://u:c@d.example/a",
    ]
    request = request_for(
        "", headers={"X-A": "b"}, new_url=lambda: links.pop(0)
    ).renewed()
    assert request.headers == {"X-A": "b", "Authorization": "Basic dTph"}
    request = request.renewed()
    assert request.headers == {"X-A": "b"}
    assert request.renewed().headers == {"X-A": "b", "Authorization": "Basic dTpj"}


@pytest.mark.parametrize("mirrors", ["https://mirror.example.net/a.bin", None, 5])
def test_mirrors_are_a_list(mirrors: Any) -> None:
    """A string would be taken for many URLs of one letter."""
    with pytest.raises(UsageError, match="list of URLs"):
        request_for(mirrors=mirrors)


def test_a_header_beats_the_user_in_the_url() -> None:
    """An Authorization header that was given counts, however it is written."""
    request = request_for(
        "https://u:p@example.org/a.bin", headers={"AUTHORIZATION": "Bearer t"}
    )
    assert request.headers == {"AUTHORIZATION": "Bearer t"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://example.org/a"}, "http"),
        ({"url": "nonsense"}, "http"),
        ({"mirrors": ["file:///etc/passwd"]}, "http"),
        ({"filename": "../a"}, "path separator"),
        ({"filename": ""}, "empty"),
        ({"headers": {"X-A": "b\r\nHost: c"}}, "line end"),
        ({"headers": {"Range": "bytes=0-1"}}, "itself"),
        ({"checksum": "sha256:abc"}, "64 hexadecimal digits"),
        ({"checksum": "rot13:abc"}, "not known"),
        ({"on_exists": "ask"}, "on_exists"),
        ({"connections": 0}, "connections"),
        ({"connections": True}, "connections"),
        ({"max_bytes": 0}, "max_bytes must be an integer >= 1"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_bytes": "1M"}, "max_bytes"),
    ],
)
def test_what_cannot_work(arguments: dict[str, Any], message: str) -> None:
    """A mistake is refused at once, with a message that says what is wrong."""
    with pytest.raises(UsageError, match=message):
        request_for(**arguments)


def test_no_secret_in_a_refusal() -> None:
    """What is refused is not repeated where it could hold a secret."""
    with pytest.raises(UsageError) as caught:
        request_for(headers={"Authorization": "Bearer s3cret\n"})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        request_for(URL + "?token=s3cret", mirrors=["ftp://u:s3cret@example.org/"])
    assert "s3cret" not in str(caught.value)


def test_a_digest_that_cannot_be_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest whose package is missing is refused before the download, not after."""
    imported = builtins.__import__

    def without_blake3(name: str, *rest: Sequence[Any]) -> ModuleType:
        if name == "blake3":
            raise ImportError(name)
        return imported(name, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(builtins, "__import__", without_blake3)
    with pytest.raises(UsageError, match=r"segdl\[hashes\]"):
        request_for(checksum="blake3:" + SHA)
