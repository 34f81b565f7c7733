"""The operator: a program in the place of people, one per session, with the control queue and no database.

It approves whatever is asked, pauses and resumes some runs, cancels a few. A command without an answer is repeated under the
same id until there is one.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from interlock.core.errors import CommandRefused, InterlockError, StateMachineError

from .agenda import Agenda
from .load import may_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock import Client

    from .plans import Plan

__all__ = ["Operator"]

_PAUSE_S = 0.2


class Operator(Agenda):
    """Carries out what is to be done in one session, in order of time.

    Attributes:
        paused: Runs that it has paused.
        resumed: Runs that it has resumed.
        cancelled: Runs that it has cancelled.
        approved: (run, step) pairs that it has approved.
        repeated: How many commands had to be sent again.
        faults: Answers that must not be.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(f"operator of {client.session_id}")
        self._client = client
        self.paused: set[str] = set()
        self.resumed: set[str] = set()
        self.cancelled: set[str] = set()
        self.approved: set[tuple[str, str]] = set()
        self.repeated = 0
        self.faults: list[str] = []

    # --- called by other threads

    def treat(self, plan: Plan, run_id: str) -> None:
        """Do to a run what its plan says."""
        wish = plan.treatment
        if wish is None:
            return
        at = time.monotonic() + wish.after_s
        if wish.verb == "cancel":
            self.at(at, partial(self._cancel, run_id))
        else:
            self.at(at, partial(self._pause, run_id, wish.mode, wish.hold_s))

    def asked(self, run_id: str, step: str) -> None:
        """A step waits for a person."""
        self.at(time.monotonic(), partial(self._approve, run_id, step))

    # --- its own thread

    def _pause(self, run_id: str, mode: str, hold_s: float) -> None:
        verb = partial(self._client.pause, run_id, reason="chaos", mode=mode, request_id=f"pause-{run_id}")
        # Ended by now, or waiting for an approval, which cannot be paused.
        if self._say(verb, refusable=True):
            self.paused.add(run_id)
            self.at(time.monotonic() + hold_s, partial(self._resume, run_id))

    def _resume(self, run_id: str) -> None:
        if self._say(partial(self._client.resume, run_id, request_id=f"resume-{run_id}")):
            self.resumed.add(run_id)

    def _cancel(self, run_id: str) -> None:
        if self._say(partial(self._client.cancel, run_id, request_id=f"cancel-{run_id}"), refusable=True):
            self.cancelled.add(run_id)

    def _approve(self, run_id: str, step: str) -> None:
        verb = partial(self._client.approve, run_id, step, request_id=f"approve-{run_id}-{step}")
        if self._say(verb, refusable=run_id in self.cancelled):
            self.approved.add((run_id, step))

    def _say(self, verb: Callable[[], None], *, refusable: bool = False) -> bool:
        """Whether the command was carried out."""
        while not self.stopping.is_set():
            try:
                verb()
            except Exception as error:
                if may_pass(error):
                    self.repeated += 1
                    self.stopping.wait(_PAUSE_S)
                    continue
                if refusable and isinstance(error, CommandRefused | StateMachineError):
                    return False
                if not isinstance(error, InterlockError):
                    raise
                self.faults.append(f"{verb.func.__name__} {verb.args}: {type(error).__name__}: {error}")  # type: ignore[attr-defined]
                return False
            else:
                return True
        return False
