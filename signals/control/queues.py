"""The control queue's messages: commands, their replies, and the queue they travel on. Both ends import this, neither the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

from kombu import Exchange, Queue
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from interlock.core import errors
from interlock.core.errors import CommandRefused, InterlockError

from .command_args import Name, Number, Text, faults_of, read_args

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = [
    "READING",
    "REPLY_PATTERN",
    "Command",
    "Verb",
    "control_connection",
    "control_queue",
    "dead_letter_queue",
    "error_document",
    "error_from",
    "expire_reply",
    "may_answer",
    "parse_command",
    "parse_fields",
    "reply_connection",
    "reply_name",
    "reply_queue",
    "trim_dead_letters",
]

REPLY_PATTERN = r"^interlock\.reply\.([A-Za-z0-9_.-]{1,200}:)?[A-Za-z0-9_.-]{1,200}$"
"""`interlock.reply.NAME`, or `interlock.reply.SESSION:NAME`, which an access list can give to one session alone."""
READING = frozenset({"replay", "status", "result", "list", "explain"})

_REPLY = "interlock.reply."
_VISIBILITY_TIMEOUT_S = 30
_REPLY_EXPIRES_S = 60.0
_DEAD_KEPT_S = 86_400
_DEAD_KEPT = 1_000
_MOST_ARGS = 32
_MOST_FAULTS = 1_000
_LONGEST_TEXT = 100_000


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

    `id` makes repetitions harmless; `if_seq` refuses the command if the run has moved since its sender looked. `signed_at`
    (seconds since 1970) and `signature` are for sessions with a key; see `signing`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    id: Name
    command: Verb
    session_id: Name = "default"
    workflow_id: Name | None = None
    actor: Text = Field(default="user", min_length=1, max_length=200)
    reason: Text | None = Field(default=None, max_length=10_000)
    args: dict[str, Any] = Field(default_factory=dict, max_length=_MOST_ARGS)
    if_seq: Number | None = None
    reply_to: str | None = Field(default=None, pattern=REPLY_PATTERN)
    signed_at: Number | None = None
    signature: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    def document(self) -> dict[str, Any]:
        """The command as JSON; unsigned, it has no fields of signatures."""
        return self.model_dump(exclude={name for name in ("signed_at", "signature") if getattr(self, name) is None})

    @model_validator(mode="after")
    def _answers_stay_in_the_session(self) -> Self:
        # Else one session could have the engine write into the queue of another one, which it may not write itself.
        if self.reply_to is not None and not may_answer(self.reply_to, self.session_id):
            raise PydanticCustomError("reply_to", "the reply queue belongs to another session")
        return self


def parse_fields(document: object) -> Command:
    """Validate a message, its arguments apart.

    Raises:
        CommandRefused: It is not a command; every fault is named.
    """
    try:
        return Command.model_validate(document)
    except ValidationError as error:
        raise CommandRefused("?", f"not a command: {faults_of(error)}", code="invalid") from None


def parse_command(document: object) -> Command:
    """Validate a message with its arguments.

    Raises:
        CommandRefused: It is not a command, or its arguments are not those of its verb; every fault is named.
    """
    command = parse_fields(document)
    read_args(command)
    return command


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
        message_ttl=_DEAD_KEPT_S,
        max_length=_DEAD_KEPT,
    )


def may_answer(reply_to: str, session_id: object) -> bool:
    """Whether a command of this session may ask for its answer there: a queue that names a session is for that one alone."""
    session, colon, _ = reply_to.removeprefix(_REPLY).partition(":")
    return not colon or session == session_id


def reply_name(session_id: str) -> str:
    """A fresh name for a client's queue of replies."""
    return f"{_REPLY}{session_id}:{uuid4().hex}"


def reply_queue(name: str, *, expires: bool = True) -> Queue:
    """A client's own queue of replies, gone soon after the client.

    On Redis it needs no time of its own: it is there while there is a reply in it, and `expire_reply` sees to that.
    """
    expires_s = _REPLY_EXPIRES_S if expires else None
    return Queue(name, Exchange(""), routing_key=name, durable=False, auto_delete=True, expires=expires_s)


def expire_reply(channel: Any, name: str) -> None:
    """Have a reply that nobody fetches go away: on Redis a queue is a list, and its client may have given up."""
    if getattr(channel, "conn_or_acquire", None) is not None:
        with channel.conn_or_acquire() as client:
            client.expire(f"{channel.global_keyprefix}{name}", int(_REPLY_EXPIRES_S))


def trim_dead_letters(channel: Any, name: str) -> None:
    """Keep the newest dead letters for a day. On RabbitMQ the queue's arguments do that; on Redis a queue is a list."""
    if getattr(channel, "conn_or_acquire", None) is not None:
        with channel.conn_or_acquire() as client:
            key = f"{channel.global_keyprefix}{name}"
            client.ltrim(key, 0, _DEAD_KEPT - 1)  # the newest is the head
            client.expire(key, _DEAD_KEPT_S)


def control_connection(app: Celery, prefix: str) -> Connection:
    """A connection for consuming commands, with unacknowledged messages of its own.

    Redis gives messages back to their queue after a visibility timeout that is checked for everything under the same keys:
    with shared keys our short timeout would give back other people's tasks while they run.
    """
    return _with_own_keys(app.connection_for_read(), f"{prefix}.control", visibility_timeout=_VISIBILITY_TIMEOUT_S)


def reply_connection(app: Celery, name: str) -> Connection:
    """A connection for sending a command and for its answer, which comes to the queue `name`.

    Whoever waits on Redis also looks for messages to give back: with keys of its own, a client touches none of the workers',
    and an access list can let it have its session's keys alone.
    """
    return _with_own_keys(app.connection_for_write(), name)


def _with_own_keys(connection: Connection, prefix: str, **options: Any) -> Connection:
    keys = {f"{name}_key": f"{prefix}.{name}" for name in ("unacked", "unacked_index", "unacked_mutex")}
    return connection.clone(transport_options={**(connection.transport_options or {}), **options, **keys})


def error_document(error: InterlockError) -> dict[str, Any]:
    """An error as a reply carries it; `error_from` makes the same error of it again.

    What is very long is cut: an answer is stored with its command, and a plan may have more faults than bytes.
    """
    fields = {
        name: list(value[:_MOST_FAULTS]) if isinstance(value, list | tuple) else value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float | bool | list | tuple | None)
    }
    text = str(error)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}\n  … and more"
    return {"type": type(error).__name__, "message": text, "fields": fields}


def error_from(document: dict[str, Any]) -> InterlockError:
    """The error that a reply carries, with its typed attributes."""
    cls = getattr(errors, str(document.get("type")), InterlockError)
    if not (isinstance(cls, type) and issubclass(cls, InterlockError)):
        cls = InterlockError
    error = cls.__new__(cls, str(document.get("message", "")))
    fields = document.get("fields")
    for name, value in fields.items() if isinstance(fields, dict) else ():
        error.__dict__[name] = tuple(value) if isinstance(value, list) else value
    error.args = (str(document.get("message", "")),)
    return error
