"""Admission to the control queue: from bytes that anybody may have sent to a command that the handler carries out.

Checked in this order, the cheapest first: size, JSON, depth, fields, signature, arguments. No database is asked, so an answer is
the same for a run that exists and for one that does not.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from interlock.core.errors import CommandRefused
from interlock.core.json_values import MAX_DEPTH
from interlock.core.names import NAME_PATTERN

from .command import REPLY_PATTERN, may_answer, parse_args, parse_fields
from .signing import Keyring

if TYPE_CHECKING:
    from interlock.core.settings import Settings

    from .command import Command
    from .fields import Args

__all__ = ["DEEPEST", "Admission", "Admitted", "Rejected", "read_document"]

DEEPEST: Final = MAX_DEPTH + 16
"""How deep a message may be nested: a payload may be 64 deep, and stands some levels down in a plan."""

_MOST_FIELDS: Final = 32
_NAME: Final = re.compile(NAME_PATTERN)
_REPLY: Final = re.compile(REPLY_PATTERN)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A command to carry out.

    Attributes:
        command: The command.
        args: Its arguments, validated.
        key: What signs its answer; None where it came unsigned.
    """

    command: Command
    args: Args
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is not carried out.

    Attributes:
        refusal: Why.
        request_id: The id that its sender gave it, where that is one: the sender knows the answer by it.
        reply_to: Where the answer goes; None where nobody asked for one, or not for one of a kind that may be given.
        key: What signs the answer; None where the message came unsigned.
    """

    refusal: CommandRefused
    request_id: str | None = None
    reply_to: str | None = None
    key: bytes | None = field(default=None, repr=False)


class Admission:
    """Decides whether a message of the control queue is a command that may be carried out."""

    def __init__(self, settings: Settings, keyring: Keyring | None = None) -> None:
        """Set up the checks.

        Args:
            settings: Sizes, and the keys of sessions.
            keyring: Instead of the settings' keys.
        """
        self.keyring = keyring or Keyring.of(settings)
        self._max_bytes = settings.max_command_bytes

    def read(self, body: bytes | str | memoryview) -> Admitted | Rejected:
        """Make a command of a message's body, or say why it is none; raises nothing."""
        try:
            document = read_document(body, self._max_bytes)
        except CommandRefused as refusal:
            return Rejected(refusal)
        key = None
        try:
            command = parse_fields(document)
            key = self.keyring.check(command)
            args = parse_args(command)
        except CommandRefused as refusal:
            return Rejected(refusal, _text(document, "id", _NAME), _reply_to(document), key)
        return Admitted(command, args, key)


def read_document(body: bytes | str | memoryview, max_bytes: int) -> object:
    """Parse a message's JSON.

    Raises:
        CommandRefused: It is too large, not UTF-8, not JSON, or nested too deep.
    """
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    if len(data) > max_bytes:
        text = f"not a command: {len(data):,} bytes, over max_command_bytes, {max_bytes:,}"
        raise CommandRefused("?", text, code="invalid")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        raise CommandRefused("?", "not a command: not JSON", code="invalid") from None
    _check_depth(document)
    _check_width(document)
    return document


def _no_number(text: str) -> float:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _check_depth(document: object) -> None:
    level: list[Any] = [document]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise CommandRefused("?", f"not a command: nested more than {DEEPEST} deep", code="invalid")


def _check_width(document: object) -> None:
    """Few names, before each unknown one becomes a fault in words."""
    parts = [document, document.get("args")] if isinstance(document, dict) else []
    if any(isinstance(part, dict) and len(part) > _MOST_FIELDS for part in parts):
        raise CommandRefused("?", f"not a command: over {_MOST_FIELDS} fields", code="invalid")


def _text(document: object, name: str, pattern: re.Pattern[str]) -> str | None:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _reply_to(document: object) -> str | None:
    name = _text(document, "reply_to", _REPLY)
    session = document.get("session_id", "default") if isinstance(document, dict) else None
    return name if name is not None and may_answer(name, session) else None
