"""Which secrets are taken out of a library's messages and of a server's words."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._redaction import hide_echo, redact_text

SECRET = "s3cr3t-Value"
URL = f"https://example.org/dir/a1b2c3.bin?part=12345678&name=holiday&sig={SECRET}%2Bx"
PAIR = base64.b64encode(f"users:{SECRET}".encode()).decode()


# --- a library's messages -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to hide here: 404", "nothing to hide here: 404"),
        (
            f"GET https://u:{SECRET}@h/x?y={SECRET}, then stop",
            "GET https://h/x?... then stop",
        ),
        (
            f'["http://a/x","http://u:{SECRET}@b/y"]',
            '["http://a/x","http://b/y"]',
        ),
        (f"Authorization: Bearer {SECRET} x", "Authorization: ***"),
        (f"{{'authorization': 'Basic {SECRET}'}}", "{'authorization': ***"),
        (f"Set-Cookie: a={SECRET}; b={SECRET}\nnext", "Set-Cookie: ***\nnext"),
        (f"proxy-authorization={SECRET}", "proxy-authorization=***"),
        (f"token={SECRET}&a=b", "token=***&a=b"),
        (f"hf_token = '{SECRET} x' ok", "hf_token = *** ok"),
        (f'"api_key": "{SECRET}"', '"api_key": ***'),
        (f"X-Amz-Signature={SECRET}", "X-Amz-Signature=***"),
        (f"X-Amz-Security-Token={SECRET};", "X-Amz-Security-Token=***;"),
        (f"Expires=1&Signature={SECRET}", "Expires=1&Signature=***"),
        (f"sig={SECRET}", "sig=***"),
        (f"sent bearer {SECRET}", "sent bearer ***"),
        ("unexpected token: '<'", "unexpected token: '<'"),
        ("assign=1, design=2", "assign=1, design=2"),
    ],
)
def test_free_text_is_redacted(text: str, expected: str) -> None:
    """A library's message loses its URLs' secrets and its credentials, no more."""
    assert redact_text(text) == expected


@given(
    st.text(alphabet="ab0-._~%!$&'()*+,;=\"<>^`{|}", max_size=8),
    st.sampled_from(["http", "https", "ftp", "HTTP"]),
)
def test_password_never_survives_in_a_text(junk: str, scheme: str) -> None:
    """Odd characters beside a password do not bring it into a message."""
    password = f"{junk}{SECRET}{junk}"
    assert SECRET not in redact_text(f"failed: {scheme}://u:{password}@host/x (28)")


# --- a server's words -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"bad signature {SECRET}%2Bx", "bad signature ***"),
        (f"bad signature {SECRET}+x", "bad signature ***"),
        (
            f"GET {URL}",
            "GET https://example.org/dir/a1b2c3.bin?part=12345678&name=holiday&sig=***",
        ),
    ],
)
def test_echo_of_the_query_is_hidden(said: str, shown: str) -> None:
    """Values of the query are hidden, decoded too, but no plain number and no word."""
    assert hide_echo(said, URL, {}) == shown


@pytest.mark.parametrize(
    ("headers", "said", "shown"),
    [
        ({"Authorization": f"Bearer {SECRET}"}, f"no user {SECRET}", "no user ***"),
        ({"authorization": f"Bearer {SECRET}"}, f"got Bearer {SECRET}!", "got ***!"),
        ({"Authorization": f"Basic {PAIR}"}, f"bad {PAIR}", "bad ***"),
        (
            {"Authorization": f"Basic {PAIR}"},
            f"bad password {SECRET}",
            "bad password ***",
        ),
        ({"Authorization": f"Basic {PAIR}"}, f"bad users:{SECRET}", "bad ***"),
        ({"Authorization": "Basic no base64 \u00fc"}, "all is well", "all is well"),
        ({"X-Api-Key": "plainword"}, "no plainword here", "no *** here"),
        ({"Cookie": f"a=1; b={SECRET}"}, f"session {SECRET}", "session ***"),
        ({"X-Count": "12345"}, "asked for bytes 0-12345", "asked for bytes 0-12345"),
        ({"User-Agent": "mine/1.0 robot"}, "no robot wanted", "no robot wanted"),
        ({"ACCEPT": "text/plain"}, "no text/plain", "no text/plain"),
    ],
)
def test_echo_of_a_header_is_hidden(
    headers: dict[str, str], said: str, shown: str
) -> None:
    """Values of header fields are hidden, but for short and for harmless ones."""
    assert hide_echo(said, "https://example.org/a", headers) == shown
