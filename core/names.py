"""Checks ids, keys and sessions, and texts for people, wherever they come in.

Names end up in Redis channels, broker headers and shell commands, so the alphabet is narrow on purpose.
"""

from __future__ import annotations

import re

from .errors import InvalidName, InvalidText
from .json_values import storable_text

__all__ = ["NAME_PATTERN", "check_name", "check_text"]

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,200}$"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def check_name(field: str, value: object) -> str:
    """Return `value` as plain text if it is a name.

    Raises:
        InvalidName: It is not a string of 1 to 200 characters of `[A-Za-z0-9_.-]`.
    """
    if isinstance(value, str) and _NAME.fullmatch(value):
        return str.__str__(value)
    raise InvalidName(field, value)


def check_text(field: str, value: object, limit: int) -> str:
    """Return `value` as plain text if it is a text that every database stores as it is.

    Raises:
        InvalidText: It is no string, is over `limit` characters, or holds NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidText(field, f"must be text, not {type(value).__name__}")
    if len(value) > limit:
        raise InvalidText(field, f"{len(value):,} characters, over the limit of {limit:,}")
    if storable_text(value) != value:
        raise InvalidText(field, "holds NUL or a lone surrogate, which cannot be stored")
    return str.__str__(value)
