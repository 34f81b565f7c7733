"""The effects of a transaction, as records for delivery after its commit, and the emitter of in-process listeners.

Nothing here knows Redis or Celery: `signals` turns these records into messages.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import TransitionVetoed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

__all__ = ["STATE_CHANGED", "STATE_CHANGING", "Dispatch", "Effects", "EventEmitter", "Interrupt", "StateChange"]

STATE_CHANGING = "state_changing"
STATE_CHANGED = "state_changed"

logger = logging.getLogger("interlock.events")


@dataclass(frozen=True, slots=True)
class StateChange:
    """One row of `state_history`: what subscribers receive.

    `history_id` is None only in `state_changing`, before the row exists; so are `seq` (0) and `created_at`.
    """

    entity_type: str
    entity_id: str
    session_id: str
    workflow_id: str
    seq: int
    from_state: str | None
    to_state: str
    reason: str | None
    transitioned_by: str
    step_key: str | None = None
    attempt: int | None = None
    created_at: datetime | None = None
    meta: dict[str, Any] | None = None
    history_id: int | None = None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> StateChange:
        """Make a change of the columns of `state_history`; without `id` and `created_at` where the row is not stored yet."""
        return cls(
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            session_id=row["session_id"],
            workflow_id=row["workflow_id"],
            seq=row["seq"],
            from_state=row["from_state"],
            to_state=row["to_state"],
            reason=row["transition_reason"],
            transitioned_by=row["transitioned_by"],
            step_key=row["step_key"],
            attempt=row["attempt"],
            created_at=row.get("created_at"),
            meta=row["meta"],
            history_id=row.get("id"),
        )

    def data(self) -> dict[str, Any]:
        """The fields as JSON: what listeners get and what events carry as `data`."""
        return {
            "entity_type": self.entity_type,
            "entity_id": self.entity_id,
            "workflow_id": self.workflow_id,
            "session_id": self.session_id,
            "step": self.step_key,
            "from_state": self.from_state,
            "to_state": self.to_state,
            "reason": self.reason,
            "transitioned_by": self.transitioned_by,
            "seq": self.seq,
            "attempt": self.attempt,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "meta": self.meta,
        }


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An attempt that is due: its message is to be published."""

    run_id: str
    session_id: str
    step_id: str
    key: str
    task: str
    task_id: str
    attempt: int
    celery_retries: int
    spec: dict[str, Any]
    override: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An attempt whose body is to stop.

    Attributes:
        task_id: Celery id of the attempt.
        message_id: Of the message by which a worker knows the process that runs it: the attempt's own, except in run-through.
        mode: `soft` raises in the body, `cancel` does so and ends its process after a grace, `terminate` ends its process.
    """

    task_id: str
    message_id: str
    mode: Literal["soft", "cancel", "terminate"] = "soft"


@dataclass(slots=True)
class Effects:
    """What is to be sent once a transaction is committed. If that is lost, the sweeper and `watch` make it good."""

    changes: list[StateChange] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    interrupts: list[Interrupt] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes or self.dispatches or self.interrupts)


class EventEmitter:
    """In-process listeners for `state_changing` and `state_changed`.

    A listener is called with one argument, the event's data (`StateChange.data()`). One that fails never stops the others
    or the transition; only `TransitionVetoed`, raised by a `state_changing` listener, is passed on, after all were called.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[[dict[str, Any]], object]]] = {}

    def on(self, event: str, listener: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
        """Call `listener` at each `event`; returns it, so that it can be used from a decorator."""
        self._listeners.setdefault(event, []).append(listener)
        return listener

    def off(self, event: str, listener: Callable[[dict[str, Any]], object]) -> None:
        """Stop calling `listener`; one that was never added is ignored."""
        listeners = self._listeners.get(event, [])
        if listener in listeners:
            listeners.remove(listener)

    def listens(self, event: str) -> bool:
        """Whether anybody listens to `event`."""
        return bool(self._listeners.get(event))

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """Call every listener of `event` in the order in which they were added.

        Raises:
            TransitionVetoed: A `state_changing` listener raised it.
        """
        veto: TransitionVetoed | None = None
        for listener in tuple(self._listeners.get(event, ())):
            try:
                listener(data)
            except TransitionVetoed as refused:
                if event == STATE_CHANGING:
                    veto = veto or refused
                else:
                    logger.exception("listener %r vetoed %s, which has already happened", listener, event)
            except Exception:  # a listener is foreign code: whatever it raises, the move and the other listeners go on
                logger.exception("listener %r of %s failed", listener, event)
        if veto is not None:
            raise veto
