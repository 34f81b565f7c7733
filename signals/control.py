"""The control queue's messages: commands, their replies, and the queue they travel on. Both ends import this, neither the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from kombu import Exchange, Queue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interlock.core import errors
from interlock.core.errors import CommandRefused, InterlockError
from interlock.core.names import NAME_PATTERN

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = [
    "READING",
    "REPLY_PATTERN",
    "Command",
    "control_connection",
    "control_queue",
    "dead_letter_queue",
    "error_document",
    "error_from",
    "expire_reply",
    "parse_command",
    "reply_address",
    "reply_queue",
]

REPLY_PATTERN = r"^interlock\.reply\.[A-Za-z0-9_.-]{1,200}$"
READING = frozenset({"replay", "status", "result", "list", "explain"})

_VISIBILITY_TIMEOUT_S = 30
_REPLY_EXPIRES_S = 60.0


Verb = Literal[
    "enqueue",
    "create",
    "set_plan",
    "start",
    "pause",
    "resume",
    "cancel",
    "approve",
    "reject",
    "retry",
    "settle",
    "rerun",
    "dispatch",
    "replay",
    "status",
    "result",
    "list",
    "explain",
]


class Command(BaseModel):
    """A control message.

    `id` makes repetitions harmless; `if_seq` refuses the command if the run has moved since its sender looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=NAME_PATTERN)
    command: Verb
    session_id: str = Field(default="default", pattern=NAME_PATTERN)
    workflow_id: str | None = Field(default=None, pattern=NAME_PATTERN)
    actor: str = Field(default="user", min_length=1, max_length=200)
    reason: str | None = Field(default=None, max_length=10_000)
    args: dict[str, Any] = Field(default_factory=dict)
    if_seq: int | None = Field(default=None, ge=0)
    reply_to: str | None = Field(default=None, pattern=REPLY_PATTERN)


def parse_command(document: object) -> Command:
    """Validate a message.

    Raises:
        CommandRefused: It is not a command; every fault is named.
    """
    try:
        return Command.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise CommandRefused("?", f"not a command: {faults}", code="invalid") from error


def control_queue(prefix: str) -> Queue:
    """The durable queue of commands; one per `interlock_channel_prefix`."""
    name = f"{prefix}.control"
    return Queue(name, Exchange(name, type="direct", durable=True), routing_key=name, durable=True)


def dead_letter_queue(prefix: str) -> Queue:
    """Where messages go that are no commands; nobody consumes it, so it keeps the last 1,000 for a day."""
    name = f"{prefix}.control.dead"
    return Queue(
        name,
        Exchange(name, type="direct", durable=True),
        routing_key=name,
        durable=True,
        message_ttl=86_400,
        max_length=1_000,
    )


def reply_queue(name: str) -> Queue:
    """A client's own queue of replies, gone soon after the client."""
    return Queue(name, Exchange(""), routing_key=name, durable=False, auto_delete=True, expires=_REPLY_EXPIRES_S)


def reply_address(document: object) -> str | None:
    """The reply queue of a message that is no command, where at least that is right: its sender is to learn why."""
    name = document.get("reply_to") if isinstance(document, dict) else None
    return name if isinstance(name, str) and re.fullmatch(REPLY_PATTERN, name) else None


def expire_reply(channel: Any, name: str) -> None:
    """Have a reply that nobody fetches go away: on Redis a queue is a list, and its client may have given up."""
    if getattr(channel, "conn_or_acquire", None) is not None:
        with channel.conn_or_acquire() as client:
            client.expire(f"{channel.global_keyprefix}{name}", int(_REPLY_EXPIRES_S))


def control_connection(app: Celery, prefix: str) -> Connection:
    """A connection for consuming commands, with unacknowledged messages of its own.

    Redis gives messages back to their queue after a visibility timeout that is checked for everything under the same keys:
    with shared keys our short timeout would give back other people's tasks while they run.
    """
    connection = app.connection_for_read()
    options = {**(connection.transport_options or {}), **_redis_keys(prefix)}
    return connection.clone(transport_options=options)


def _redis_keys(prefix: str) -> dict[str, Any]:
    return {
        "visibility_timeout": _VISIBILITY_TIMEOUT_S,
        "unacked_key": f"{prefix}.control.unacked",
        "unacked_index_key": f"{prefix}.control.unacked_index",
        "unacked_mutex_key": f"{prefix}.control.unacked_mutex",
    }


def error_document(error: InterlockError) -> dict[str, Any]:
    """An error as a reply carries it; `error_from` makes the same error of it again."""
    fields = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float | bool | list | tuple | None)
    }
    return {"type": type(error).__name__, "message": str(error), "fields": fields}


def error_from(document: dict[str, Any]) -> InterlockError:
    """The error that a reply carries, with its typed attributes."""
    cls = getattr(errors, str(document.get("type")), InterlockError)
    if not (isinstance(cls, type) and issubclass(cls, InterlockError)):
        cls = InterlockError
    error = cls.__new__(cls, str(document.get("message", "")))
    for name, value in dict(document.get("fields") or {}).items():
        error.__dict__[name] = tuple(value) if isinstance(value, list) else value
    error.args = (str(document.get("message", "")),)
    return error
