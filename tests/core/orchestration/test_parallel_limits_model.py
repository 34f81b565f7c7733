"""Random plans under random limits, with everything that workers and people may do: they always end, and nothing is exceeded.

The checker, which knows the limits from the plan, looks after every operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core import WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.errors import AlreadyDecided
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.core.checker import check
from tests.core.rows import Rows, forget_everything, step
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from interlock.core import Database
    from interlock.core.attempts.attempts import AttemptRef

OPERATIONS = 25
ENDED = ("completed", "failed", "cancelled")
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Up to seven steps of every kind, each of which may wait for any of those before it, and a limit."""
    found: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 7))):
        earlier = [made["key"] for made in found]
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        options: dict[str, Any] = {
            "trigger": draw(st.sampled_from(["all_completed", "all_settled", *(["any_failed"] if after else [])])),
            "on_failure": draw(st.sampled_from(["continue", "continue", "pause", "fail"])),
            "when": draw(st.sampled_from([None, None, "input.yes", "input.no", "abs(input.text) > `0`"])),
            "retry": {
                "max_attempts": draw(st.integers(1, 2)),
                "initial_delay_s": draw(st.sampled_from([0.0, 60.0])),
                "jitter": 0.0,
            },
        }
        kind = draw(st.sampled_from(["task", "task", "asking", "gate", "map", "asking map"]))
        if kind in ("gate", "asking", "asking map"):
            options["approval"] = {"on_reject": draw(st.sampled_from(["continue", "cancel"]))}
        if kind in ("map", "asking map"):
            size, most = draw(st.integers(0, 4)), draw(st.sampled_from([None, 1, 2]))
            options["map"] = {"over": f"input.lists[{size}]", "max_parallel": most}
        planned = step(f"s{index}", " ".join(after), **options)
        found.append({**planned, "task": None} if kind == "gate" else planned)
    return {"steps": found, "task_description": "x", "max_parallel": draw(st.sampled_from([None, 1, 2, 3]))}


class World:
    """A run, the bodies that workers hold, and what may be done next."""

    def __init__(self, database: Database, controller: WorkflowController, plan: dict[str, Any]) -> None:
        database.after_commit.clear()
        limits = Settings()
        self.database, self.rows, self.controller = database, Rows(database), controller
        self.worker, self.sweeper = WorkerDouble(database, limits), Sweeper(database, limits)
        self.bodies: list[AttemptRef] = []
        lists = [list(range(size)) for size in range(4)] + ["no list"]
        document = {"yes": True, "no": False, "text": "x", "lists": lists}
        self.run_id = controller.enqueue_workflow(plan, input=document)
        check(database)

    @property
    def status(self) -> str:
        """The run's state."""
        return str(self.rows.run(self.run_id).status)

    def enabled(self, *, gently: bool = False) -> list[tuple[str, Any]]:
        """What could happen now; `gently`, only what brings the run nearer to its end."""
        found: list[tuple[str, Any]] = [("claim", None)] * 3 * bool(self.worker.queue)
        found += [("complete", body) for body in self.bodies]
        states = self.rows.states(self.run_id)
        status = self.status
        if status in ("executing", "waiting_approval", "paused"):
            found += [("approve", key) for key, state in states.items() if state == "waiting_approval"]
        if status == "paused":
            found.append(("resume", None))
        rows = {key: self.rows.step(self.run_id, key) for key in states}
        if status == "executing":
            found += [("make_due", (key, name)) for key, row in rows.items() for name in _timers(row)]
            found += [("resume_step", key) for key, row in rows.items() if row.paused_by is not None]
        if gently:
            return found
        found += [("fail", body) for body in self.bodies]
        found += [("stop", body) for body in self.bodies]
        if status == "executing":
            found.append(("pause", None))
            found += [("pause_step", key) for key, row in rows.items() if row.status == "running" and row.task_id]
        if status in ("executing", "paused"):
            found += [
                (verb, key) for key, row in rows.items() if row.status == "failed" for verb in ("retry", "settle")
            ]
            found += [("reject", key) for key, state in states.items() if state == "waiting_approval"]
        return found

    def do(self, operation: tuple[str, Any]) -> None:
        """Do it, and look whether everything is sound."""
        name, subject = operation
        getattr(self, f"_{name}")(subject)
        check(self.database)

    def end(self) -> None:
        """Let everything come to its end; each round does all that can be done."""
        for _ in range(60):
            if self.status in ENDED:
                return
            for operation in self.enabled(gently=True):
                # What one operation does may make the next impossible: decided, resumed, or settled by it.
                if operation in self.enabled(gently=True):
                    self.do(operation)
        raise AssertionError(self.controller.get_workflow_status(self.run_id))

    def _claim(self, _: None) -> None:
        ref, claim = self.worker.offer(self.worker.queue[0].key)
        if claim.granted:
            self.bodies.append(ref)

    def _complete(self, body: AttemptRef) -> None:
        self.bodies.remove(body)
        self.worker.attempts.complete(body, 1)

    def _fail(self, body: AttemptRef) -> None:
        self.bodies.remove(body)
        self.worker.attempts.fail(body, Failure("error", "ValueError: no"))

    def _stop(self, body: AttemptRef) -> None:
        self.bodies.remove(body)
        self.worker.attempts.fail(body, Failure("interrupted", "told to stop"))

    def _make_due(self, which: tuple[str, str]) -> None:
        self.rows.make_due(self.run_id, *which)
        self.sweeper.sweep()

    def _pause(self, _: None) -> None:
        self.controller.pause_workflow(self.run_id)

    def _resume(self, _: None) -> None:
        self.controller.resume_workflow(self.run_id)

    def _pause_step(self, key: str) -> None:
        self.controller.pause_step(self.run_id, key)

    def _resume_step(self, key: str) -> None:
        self.controller.resume_step(self.run_id, key)

    def _approve(self, key: str) -> None:
        self._decide("approve", key)

    def _reject(self, key: str) -> None:
        self._decide("reject", key)

    def _decide(self, verb: str, key: str) -> None:
        try:
            getattr(self.controller, f"{verb}_step")(self.run_id, key)
        except AlreadyDecided:
            # Stored: it takes effect at resume, or when there is a slot.
            assert self.status in ("paused", "executing")

    def _retry(self, key: str) -> None:
        self.controller.retry_step(self.run_id, key)

    def _settle(self, key: str) -> None:
        self.controller.settle_step(self.run_id, key, 1)


def _timers(row: Any) -> list[str]:
    """Timers of a step that has no body, which may be brought forward."""
    if row.status == "failed" and row.retry_at is not None:
        return ["retry_at"]
    waits = row.status in ("pending", "running") and row.drain_token is not None and row.claim_token is None
    return ["drain_until", "dispatch_check_at"] if waits else []


def _play(database: Database, plan: dict[str, Any], data: st.DataObject) -> None:
    forget_everything(database)  # the checker replays only this run
    with database.session() as session:
        world = World(database, WorkflowController(session, settings=Settings()), plan)
        for _ in range(OPERATIONS):
            enabled = world.enabled()
            if not enabled:
                break
            world.do(data.draw(st.sampled_from(enabled), label="operation"))
        world.end()
        assert not world.sweeper.sweep()


@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
@settings(max_examples=20, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_on_sqlite_every_plan_ends(unchecked_database: Database, plan: dict[str, Any], data: st.DataObject) -> None:
    _play(unchecked_database, plan, data)


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@settings(max_examples=6, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_on_postgresql_every_plan_ends(unchecked_database: Database, plan: dict[str, Any], data: st.DataObject) -> None:
    _play(unchecked_database, plan, data)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@settings(max_examples=80, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_on_both_databases_every_one_of_many_plans_ends(
    unchecked_database: Database, plan: dict[str, Any], data: st.DataObject
) -> None:
    _play(unchecked_database, plan, data)
