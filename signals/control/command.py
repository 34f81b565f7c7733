"""A control message: its fields, and how it is read from JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from interlock.core.errors import CommandRefused

from .fields import Args, Name, Number, Text, faults_of
from .verbs import VERBS

__all__ = ["REPLY_PATTERN", "REPLY_PREFIX", "Command", "may_answer", "parse_args", "parse_fields"]

REPLY_PREFIX: Final = "interlock.reply."
REPLY_PATTERN: Final = r"^interlock\.reply\.([A-Za-z0-9_.-]{1,200}:)?[A-Za-z0-9_.-]{1,200}$"
"""`interlock.reply.NAME`, or `interlock.reply.SESSION:NAME`, which an access list can give to one session alone."""

_MOST_ARGS: Final = 32


def _verb(name: str) -> str:
    if name not in VERBS:
        raise PydanticCustomError("verb", "is none of {verbs}", {"verbs": ", ".join(VERBS)})
    return name


class Command(BaseModel):
    """A control message.

    `id` makes repetitions harmless; `if_seq` refuses the command if the run has moved since its sender looked. `signed_at`
    (seconds since 1970) and `signature` are for sessions with a key; see `signing`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    id: Name
    command: Annotated[str, AfterValidator(_verb)]
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


def parse_args(command: Command) -> Args:
    """Validate a message's arguments: those of its verb.

    Raises:
        CommandRefused: They do not fit, or the run is missing; every fault is named.
    """
    verb = VERBS[command.command]
    try:
        args = verb.args.model_validate(command.args)
    except ValidationError as error:
        raise CommandRefused(command.command, faults_of(error, "args"), code="invalid") from None
    if verb.needs_run and command.workflow_id is None:
        raise CommandRefused(command.command, "workflow_id: is required for this command", code="invalid")
    return args


def may_answer(reply_to: str, session_id: object) -> bool:
    """Whether a command of this session may ask for its answer there: a queue that names a session is for that one alone."""
    session, colon, _ = reply_to.removeprefix(REPLY_PREFIX).partition(":")
    return not colon or session == session_id
