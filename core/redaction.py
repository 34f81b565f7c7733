"""Removes passwords and tokens from URLs and messages before they are shown.

Whatever prints a URL or a foreign error text uses it: logs, errors, reprs, the command line. A URL that cannot be parsed safely is
shown as its scheme alone.
"""

from __future__ import annotations

import logging
import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["HIDDEN", "RedactingFormatter", "redacted", "redacted_url"]

HIDDEN: Final = "***"
"""What stands in the place of what is not shown."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}(?=://)")
# Up to the last @ of a word, because a password may hold an unescaped one; quotes and brackets end the word.
_CREDENTIALS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,40}://)[^\s'\"<>]{0,2000}@")
_NAMED: Final = re.compile(
    r"((?:password|passwd|passphrase|(?<![a-z])(?:pwd|secret|token|signature|(?:api|access|private)_?key))"
    r"['\"]?\s*(?:=|:(?!/))\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s&;,'\"]+)",
    re.IGNORECASE,
)


def redacted_url(url: str) -> str:
    """Scheme, host, port and path of a URL, without user, password and options.

    Of several, separated by `;` as kombu takes them, each is shown so. What is no URL is not shown at all.
    """
    parts = url.split(";")
    if not all(_SCHEME.match(part) for part in parts):
        return _one_url(url)  # a password may hold a semicolon
    return ";".join(_one_url(part) for part in parts)


def redacted(text: str) -> str:
    """Text of foreign origin, with the credentials of its URLs and the values of its `password=…` replaced."""
    return _NAMED.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(rf"\1{HIDDEN}@", text))


class RedactingFormatter(logging.Formatter):
    """Formats as `logging.Formatter` does, traceback included, and redacts the outcome."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text as it may be shown."""
        return redacted(super().format(record))


def _one_url(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is None:
        return HIDDEN
    head, _, options = url.partition("?")
    if "@" in options or "#" in head:
        return f"{scheme[0]}://{HIDDEN}"  # a password with an unescaped ? or #: where it ends is a guess
    rest = head[len(scheme[0]) + 3 :].rpartition("@")[2]
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"{scheme[0]}://{HIDDEN}"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme[0]}://{host}{'' if port is None else f':{port}'}{parts.path}"
