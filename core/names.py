"""What may be an id, a key or a session: one rule, checked at every door.

Names end up in Redis channels, broker headers and shell commands, so the alphabet is narrow on purpose.
"""

from __future__ import annotations

import re

from .errors import InvalidName

__all__ = ["NAME_PATTERN", "check_name"]

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,200}$"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def check_name(field: str, value: object) -> str:
    """Return `value` if it is a name.

    Raises:
        InvalidName: It is not a string of 1 to 200 characters of `[A-Za-z0-9_.-]`.
    """
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise InvalidName(field, value)
