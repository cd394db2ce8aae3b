"""Which TLS cipher is offered first depends on what the processor can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from segdl._tls import has_aes


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("flags\t\t: fpu vme aes avx\n", True),
        ("Features\t: fp asimd aes pmull\n", True),
        ("flags\t\t: fpu vme avx\n", False),
        ("model name\t: Some aes processor\nflags : fpu\n", False),
        ("", False),
    ],
)
def test_instructions_for_aes(tmp_path: Path, text: str, known: bool) -> None:
    """The processor's flags tell, in the forms of x86 and of ARM."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert has_aes(str(cpuinfo)) is known


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    """Without the file nothing is known, and OpenSSL's own order stays."""
    assert has_aes(str(tmp_path / "none")) is False
