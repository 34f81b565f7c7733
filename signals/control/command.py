"""A control message: which commands there are, their fields, and how one is read from JSON."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from interlock.core.errors import CommandRefused

from .command_args import Name, Number, Text, faults_of, read_args

__all__ = ["READING", "REPLY_PATTERN", "REPLY_PREFIX", "Command", "Verb", "may_answer", "parse_command", "parse_fields"]

REPLY_PREFIX: Final = "interlock.reply."
REPLY_PATTERN: Final = r"^interlock\.reply\.([A-Za-z0-9_.-]{1,200}:)?[A-Za-z0-9_.-]{1,200}$"
"""`interlock.reply.NAME`, or `interlock.reply.SESSION:NAME`, which an access list can give to one session alone."""
READING: Final = frozenset({"replay", "status", "result", "list", "explain"})

_MOST_ARGS: Final = 32

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


def may_answer(reply_to: str, session_id: object) -> bool:
    """Whether a command of this session may ask for its answer there: a queue that names a session is for that one alone."""
    session, colon, _ = reply_to.removeprefix(REPLY_PREFIX).partition(":")
    return not colon or session == session_id
