"""The lines that MAIN and its engine process exchange: one JSON object each."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["parse_message", "read_lines"]


def read_lines(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The engine's end: messages until MAIN closes the pipe or dies."""
    for line in stream:
        message = parse_message(line)
        if message is not None:
            yield message


def parse_message(line: bytes) -> dict[str, Any] | None:
    """The message of a line; None where it is none."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
