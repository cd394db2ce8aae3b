"""Taking secrets out of running text: a library's messages, a server's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from segdl._urls import SAFE_ELSEWHERE, redact

# Shorter ones would take ordinary words and numbers out of a message.
_MIN_SECRET_CHARACTERS = 6
_MIXED = re.compile(r"\d.*[A-Za-z]|[A-Za-z].*\d", re.DOTALL)

# One URL in running text. The userinfo may hold quotes, so it is matched first; the
# host and path end at a quote, so that the next URL of a list is seen as one; a query
# runs to the next space, since whatever it holds is dropped. A scheme alone is none:
# segdl's own words name some.
_URL_IN_TEXT = re.compile(
    r"""(?<![a-z0-9])[a-z][a-z0-9+.\-]{0,15}://(?!,?(?:\s|\Z))(?:[^\s/?\#]*@)?[^\s"'<>?\#]*(?:[?\#]\S*)?""",
    re.IGNORECASE,
)
# To the end of the line: a cookie and a credential may hold spaces and commas.
_SECRET_FIELD = re.compile(
    r"""\b((?:proxy-)?authorization|(?:set-)?cookie2?|x-api-key|x-auth-token)
        (["']?[ \t]*[:=][ \t]*)\S.*""",
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_PAIR = re.compile(
    r"""\b((?:[\w.\-]{0,40}(?:token|signature|credential|password|secret|api[_\-]?key))
          |passwd|pwd|sig|key|auth)
        (["']?[ \t]*=[ \t]*|["'][ \t]*:[ \t]*)
        ("[^"]*"?|'[^']*'?|[^\s&;,"'<>]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_BEARER = re.compile(r"\b(bearer[ \t]+)[^\s,;\"']{8,}", re.IGNORECASE)


def redact_text(text: str) -> str:
    """
    Remove what looks like a secret from free text, such as a library's message.

    Args:
        text: Any text.

    Returns:
        The text with its URLs redacted, and `***` for the values of credential fields
        (Authorization, Cookie) and of pairs such as `token=` or `X-Amz-Signature=`.
    """
    text = _URL_IN_TEXT.sub(lambda match: redact(match[0]), text)
    text = _SECRET_FIELD.sub(r"\1\2***", text)
    text = _SECRET_PAIR.sub(r"\1\2***", text)
    return _BEARER.sub(r"\1***", text)


def hide_echo(text: str, url: str, headers: Mapping[str, str]) -> str:
    """
    Remove a request's own secrets from what a server said.

    Args:
        text: A message that holds words of the server.
        url: That was asked for; the values of its query are secrets, unless they are
            plain numbers or plain words, which a message may need.
        headers: That were sent; their values are, but for the harmless fields.

    Returns:
        The text with `***` for each of at least six characters.
    """
    from urllib.parse import unquote

    values = re.split(r"[?&=#]", url.partition("?")[2])
    secrets = set(filter(_MIXED.search, values))
    for name, value in headers.items():
        if name.lower() not in SAFE_ELSEWHERE:
            secrets |= {value, *re.split(r"[\s;,=]+", value), *_basic(value)}
    secrets |= {unquote(secret) for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARACTERS:
            text = text.replace(secret, "***")
    return text


def _basic(value: str) -> list[str]:
    """Give user name and password of a Basic credential, and the two together."""
    scheme, _, coded = value.partition(" ")
    if scheme.lower() != "basic":
        return []
    from base64 import b64decode

    try:
        pair = b64decode(coded, validate=True).decode("latin-1")
    except ValueError:
        return []
    return [pair, *pair.split(":", 1)]
