"""Every error Interlock raises on purpose, under one root.

What a program needs is in typed attributes; the message is for people and says what to do. All of them survive pickling,
because Celery and multiprocessing carry exceptions between processes.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AlreadyDecided",
    "BrokerUnavailable",
    "CommandRefused",
    "CommandTimeout",
    "ConfigurationError",
    "DatabaseBusy",
    "EntityNotFound",
    "ExpressionError",
    "GuardRefused",
    "InterlockError",
    "InvalidName",
    "InvalidPlan",
    "InvalidText",
    "NotJson",
    "NotMigrated",
    "PayloadTooLarge",
    "RunNotFound",
    "SignatureRefused",
    "StateMachineError",
    "TransitionConflict",
    "TransitionNotAllowed",
    "TransitionVetoed",
    "UnknownState",
    "UntrustedAnswer",
]


def _restore(cls: type[InterlockError], args: tuple[Any, ...], fields: dict[str, Any]) -> InterlockError:
    error = cls.__new__(cls, *args)
    error.args = args  # an OSError (CommandTimeout is one) leaves them to __init__
    error.__dict__.update(fields)
    return error


class InterlockError(Exception):
    """Root of the hierarchy.

    Attributes:
        retryable: Whether the same call may succeed later without a change.
    """

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild without `__init__`, whose arguments are not the message."""
        return _restore, (type(self), self.args, dict(self.__dict__))


class ConfigurationError(InterlockError):
    """A setting is missing or does not fit."""


class NotMigrated(ConfigurationError):
    """The database's tables are not those of this version.

    Attributes:
        current: Revision of the database, None when it has none.
        expected: Revision that this version needs.
    """

    def __init__(self, current: str | None, expected: str) -> None:
        self.current, self.expected = current, expected
        state = f"is at revision {current}" if current else "has no Interlock tables"
        super().__init__(
            f"the database {state}, and this version needs {expected}: run `interlock db upgrade`",
        )


class DatabaseBusy(InterlockError):
    """The database gave up on this transaction (lock, deadlock, serialization); nothing was written."""

    retryable = True


class InvalidName(InterlockError, ValueError):
    """An id, key or session holds characters outside `[A-Za-z0-9_.-]`.

    Attributes:
        field: What was named.
        value: What was given.
    """

    def __init__(self, field: str, value: object) -> None:
        self.field, self.value = field, value
        super().__init__(f"{field}: {value!r} is not a name: use 1 to 200 of A-Z a-z 0-9 _ . -")


class InvalidText(InterlockError, ValueError):
    """A text for people cannot be stored as it is.

    Attributes:
        field: What was given.
        detail: What is wrong with it.
    """

    def __init__(self, field: str, detail: str) -> None:
        self.field, self.detail = field, detail
        super().__init__(f"{field}: {detail}")


class InvalidPlan(InterlockError, ValueError):
    """A plan was refused whole.

    Attributes:
        faults: Every fault found, each naming its field.
    """

    def __init__(self, faults: tuple[str, ...] | list[str]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        head = "the plan has a fault" if count == 1 else f"the plan has {count} faults"
        super().__init__(f"{head}:\n  " + "\n  ".join(self.faults))


class PayloadTooLarge(InterlockError, ValueError):
    """A JSON document is over its limit.

    Attributes:
        field: What was measured.
        size: Bytes of its JSON text.
        limit: Bytes allowed.
    """

    def __init__(self, field: str, size: int, limit: int) -> None:
        self.field, self.size, self.limit = field, size, limit
        super().__init__(
            f"{field}: {size:,} bytes of JSON, over the limit of {limit:,}: keep large data elsewhere and pass a reference",
        )


class NotJson(InterlockError, ValueError):
    """A value cannot be stored as JSON.

    Attributes:
        field: What was to be stored, with the path of the part at fault.
        fault: What is wrong with it.
    """

    def __init__(self, field: str, fault: str) -> None:
        self.field, self.fault = field, fault
        super().__init__(f"{field}: {fault}")


class ExpressionError(InterlockError, ValueError):
    """A JMESPath expression does not parse or cannot be evaluated.

    Attributes:
        expression: Its text.
        detail: What is wrong with it.
    """

    def __init__(self, expression: str, detail: str) -> None:
        self.expression, self.detail = expression, detail
        super().__init__(f"expression {expression!r}: {detail}")


class RunNotFound(InterlockError, ValueError):
    """No such run, or it belongs to another session (which looks the same from here).

    Attributes:
        run_id: The id asked for.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"no workflow run {run_id!r} in this session")


class CommandRefused(InterlockError):
    """A verb does not apply to the run as it is.

    Attributes:
        command: The verb.
        code: A word for programs, such as `not_allowed` or `unknown_task`.
    """

    def __init__(self, command: str, message: str, *, code: str = "not_allowed") -> None:
        self.command, self.code = command, code
        super().__init__(message)


class SignatureRefused(CommandRefused):
    """The session takes signed commands only, and this one is not signed as it must be; nothing was done.

    Attributes:
        session_id: The session that the command names.
        code: `unsigned`, `bad_signature`, or `expired` (signed at a time too far from the engine's).
    """

    def __init__(self, command: str, session_id: str, message: str, *, code: str) -> None:
        self.session_id = session_id
        super().__init__(command, f"session {session_id}: {message}", code=code)


class AlreadyDecided(CommandRefused):
    """The approval was decided before.

    Attributes:
        decision: `approved` or `rejected`.
        decided_by: Who did.
    """

    def __init__(self, command: str, decision: str, decided_by: str | None) -> None:
        self.decision, self.decided_by = decision, decided_by
        super().__init__(command, f"already decided: {decision} by {decided_by}", code="already_decided")


class BrokerUnavailable(InterlockError):
    """A command could not be sent.

    Attributes:
        request_id: The command's id.
        detail: What went wrong.
    """

    retryable = True

    def __init__(self, request_id: str, detail: str) -> None:
        self.request_id, self.detail = request_id, detail
        super().__init__(f"the broker does not take the command ({detail}): is it running, and is its URL right?")


class CommandTimeout(InterlockError, TimeoutError):
    """No engine answered a control command in time. It may still be carried out: repeat it with the same id.

    Attributes:
        request_id: The command's id.
    """

    retryable = True

    def __init__(self, request_id: str, timeout_s: float) -> None:
        self.request_id = request_id
        super().__init__(
            f"no answer to command {request_id} within {timeout_s:g} s: is a worker running? "
            f"Repeat it with request_id={request_id!r}; it is carried out once",
        )


class UntrustedAnswer(InterlockError):
    """An answer came that is not signed with a key of this session, and no other one in time.

    The command may have been carried out, or not: repeat it with the same id once the keys agree.

    Attributes:
        request_id: The command's id.
        said: What the answer said, to be believed or not.
    """

    def __init__(self, request_id: str, said: str) -> None:
        self.request_id, self.said = request_id, said
        super().__init__(
            f"the answer to command {request_id} is not signed with a key of this session, so it is not believed; it "
            f"said: {said}. Have the workers the same interlock_signing_keys?",
        )


class StateMachineError(InterlockError):
    """A transition was not made.

    Attributes:
        entity_type: `workflow_run` or `workflow_step`, where known.
        entity_id: The entity's id, where known.
        from_state: The state it is in, where known.
        to_state: The state that was asked for, where known.
        allowed: What the table allows from `from_state`.
        guard: The guard that refused, if one did.
    """

    entity_type: str | None = None
    entity_id: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    allowed: tuple[str, ...] = ()
    guard: str | None = None

    @property
    def entity(self) -> tuple[str | None, str | None]:
        """The pair (entity_type, entity_id)."""
        return self.entity_type, self.entity_id


class UnknownState(StateMachineError):
    """The state asked for does not exist.

    Attributes:
        known: The states that do.
    """

    def __init__(self, *, entity_type: str, state: str, known: tuple[str, ...]) -> None:
        self.entity_type, self.to_state, self.known = entity_type, state, known
        super().__init__(f"{state!r} is not a state of {entity_type}: it has {', '.join(known)}")


class EntityNotFound(StateMachineError):
    """No such entity, or it belongs to another session."""

    def __init__(self, *, entity_type: str, entity_id: str, to_state: str | None = None) -> None:
        self.entity_type, self.entity_id, self.to_state = entity_type, entity_id, to_state
        super().__init__(f"no {entity_type} {entity_id!r} in this session")


class _EdgeError(StateMachineError):
    def __init__(
        self,
        message: str,
        *,
        entity_type: str,
        entity_id: str,
        from_state: str,
        to_state: str,
        allowed: tuple[str, ...] = (),
        guard: str | None = None,
    ) -> None:
        self.entity_type, self.entity_id = entity_type, entity_id
        self.from_state, self.to_state = str(from_state), str(to_state)
        self.allowed, self.guard = tuple(str(state) for state in allowed), guard
        super().__init__(f"{entity_type} {entity_id}: {self.from_state} → {self.to_state} {message}")


class TransitionNotAllowed(_EdgeError):
    """The table has no such edge.

    Attributes:
        detail: What to do instead, where that is known.
    """

    def __init__(self, *, detail: str = "", **edge: Any) -> None:
        self.detail = detail
        allowed = ", ".join(str(state) for state in edge.get("allowed", ())) or "nothing, it is terminal"
        super().__init__(f"is not allowed; allowed: {allowed}" + (f" ({detail})" if detail else ""), **edge)


class GuardRefused(_EdgeError):
    """A guard on the edge did not hold; `guard` names it."""

    def __init__(self, *, detail: str = "", **edge: Any) -> None:
        self.detail = detail
        super().__init__(f"was refused by guard {edge['guard']!r}" + (f": {detail}" if detail else ""), **edge)


class TransitionConflict(_EdgeError):
    """Somebody else moved the entity first."""

    retryable = True

    def __init__(self, **edge: Any) -> None:
        super().__init__("lost a race: the entity has moved meanwhile", **edge)


class TransitionVetoed(StateMachineError):
    """Raised by a `state_changing` listener to stop a move that a caller or a command asked for."""
