"""Follows every run: lets people act when what they wait for has happened, and looks after runs that stand.

What happens is heard from a subscriber. What stands is read from the database in one statement, so that it was so at one moment.
A run in which nothing moves for a while, and which somebody is to move on, is moved on by the caretaker; one that ought to move by
itself is stuck.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from .plans import Act
from .standstill import movable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interlock.core import Database
    from interlock.core.events import StateChange

    from .facts import Said
    from .people import Person
    from .plans import Plan

__all__ = ["LiveRun", "Watch"]

_ENDS = ("completed", "failed", "cancelled")
_QUIET_S = 2.0  # with no change, before the caretaker looks
_STILL_S = 45.0  # a lease, a sweep and a redispatch, several times over
_MOST_RERUNS = 2
_STANDING = text(
    "SELECT r.status AS run, s.key, s.status FROM workflow_runs r JOIN workflow_steps s ON s.run_id = r.id WHERE r.id = :id"
)


@dataclass(slots=True)
class LiveRun:
    """One run, as far as it has been heard of.

    Attributes:
        plan: Its plan.
        run_id: Its id.
        family: The name that it shares with its reruns.
        forked_from: The run that it runs again.
        status: Its state.
        changed_at: When the last change was heard of, by `time.monotonic`.
        said: What people asked for.
        asking: How much they are about to ask for.
        findings: What must not be, seen while it stood.
        stuck: What `explain` said where it did not end.
    """

    plan: Plan
    run_id: str
    family: str
    forked_from: LiveRun | None = None
    status: str = "draft"
    changed_at: float = field(default_factory=time.monotonic)
    looked_at: float = 0.0
    seen: set[tuple[str | None, str]] = field(default_factory=set)
    said: list[Said] = field(default_factory=list)
    asking: int = 0
    findings: list[str] = field(default_factory=list)
    stuck: Any = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done with it."""
        return not self.asking and (self.stuck is not None or self.status in _ENDS)

    @property
    def age(self) -> int:
        """How many runs it runs again."""
        return 0 if self.forked_from is None else 1 + self.forked_from.age


class Watch:
    """All runs.

    Args:
        database: Where one looks at what stands.
        people: Who acts; the last one is the caretaker.
        explain: Says why a run stands.

    Attributes:
        runs: By id.
    """

    def __init__(self, database: Database, people: Sequence[Person], explain: Callable[[str], Any]) -> None:
        self._database, self._people, self._explain = database, people, explain
        self._lock = threading.RLock()
        self._early: dict[str, list[StateChange]] = defaultdict(list)
        self.runs: dict[str, LiveRun] = {}

    def add(self, run: LiveRun) -> None:
        """Follow a run, from its first change on, which may have been heard of before its id was known here."""
        with self._lock:
            self.runs[run.run_id] = run
            for change in self._early.pop(run.run_id, ()):
                self.heard(change)

    def heard(self, change: StateChange) -> None:
        """Something has changed; called by the subscribers' thread."""
        with self._lock:
            run = self.runs.get(change.workflow_id)
            if run is None:
                self._early[change.workflow_id].append(change)
                return
            run.changed_at = time.monotonic()
            if change.step_key is None:
                run.status = change.to_state
            event = (change.step_key, change.to_state)
            if event not in run.seen:
                run.seen.add(event)
                for act in run.plan.acts:
                    if act.when == event and not (act.verb == "rerun" and (run.stuck or run.age >= _MOST_RERUNS)):
                        self._ask(run, act, self._people[act.who])

    @property
    def live(self) -> list[LiveRun]:
        """Those that are not over."""
        with self._lock:
            return [run for run in self.runs.values() if not run.over]

    def look_after(self) -> None:
        """Move on, or give up, what stands; to be called again and again."""
        now = time.monotonic()
        for run in self.live:
            if not run.asking and now - max(run.changed_at, run.looked_at) > _QUIET_S:
                run.looked_at = now
                self._look(run)

    # --- what stands

    def _standing(self, run_id: str) -> tuple[str, dict[str, str]]:
        with self._database.reading() as connection:
            rows = connection.execute(_STANDING, {"id": run_id}).all()
        return rows[0].run, {row.key: row.status for row in rows}

    def _inspect(self, run: LiveRun) -> None:
        """While a run waits for people, nothing in it may be able to move."""
        status, states = self._standing(run.run_id)
        if status == "waiting_approval":
            run.findings += [f"while the run waits for people: {each}" for each in movable(run.plan, states)]

    def _look(self, run: LiveRun) -> None:
        status, states = self._standing(run.run_id)
        dice = random.Random(f"{run.plan.seed} {run.family} {sorted(states.items())}")  # noqa: S311 - repeatable on purpose
        by_state: dict[str, list[str]] = defaultdict(list)
        for key, state in states.items():
            by_state[state].append(key)
        if status in _ENDS:
            run.status = status  # the subscriber will hear of it
        elif status == "waiting_approval":
            self._inspect(run)
            self._take_care(run, dice.choice(["approve", "approve", "reject"]), by_state["waiting_approval"][0])
        elif status == "paused":
            for key in by_state["failed"]:
                again = any(said.act.verb == "retry" and said.act.step == key for said in run.said)
                verb = dice.choice(["settle", None] if again else ["retry", "settle", None])
                if verb is not None:
                    self._take_care(run, verb, key)
            self._take_care(run, "resume", None)
        elif by_state["paused"]:
            self._take_care(run, "resume", by_state["paused"][0])
        elif time.monotonic() - run.changed_at > _STILL_S:
            run.stuck = self._explain(run.run_id)
            run.findings.append(f"nothing has moved for {_STILL_S:g} s, while the run is {status}: {states}")
            self._take_care(run, "cancel", None)

    # --- who acts

    def _take_care(self, run: LiveRun, verb: Any, step: str | None) -> None:
        self._ask(run, Act(verb, (None, "quiet"), step), self._people[-1])

    def _ask(self, run: LiveRun, act: Act, person: Person) -> None:
        with self._lock:
            run.asking += 1
        owner = None if act.step is None else run.plan.owner(act.step)
        value: dict[str, Any] = {"body": "by hand", "value": 5}
        if owner is not None and owner.gives is not None:
            value["items"] = [list(fates) for fates in owner.gives]

        def told(said: Said) -> None:
            with self._lock:
                run.said.append(said)
                run.asking -= 1
                run.changed_at = time.monotonic()
            if said.accepted and act.verb == "rerun":
                self.add(LiveRun(run.plan, said.result, run.family, forked_from=run))

        def before() -> None:
            if act.when == (None, "waiting_approval"):
                self._inspect(run)

        person.ask(run.run_id, act, value, told, before)
