"""Random plans and random fates, on a real database, compared with a model in plain Python after every operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core import WorkflowController
from interlock.core.attempts import Report
from interlock.core.outcomes import Failure
from interlock.core.settings import Settings
from interlock.core.states import StepState, WorkflowState
from interlock.core.sweep import Sweeper

from .checker import check
from .flow_model import Model, ModelStep
from .rows import Rows, forget_everything, step
from .worker_double import WorkerDouble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.attempts import AttemptRef

OPERATIONS = 30
CONDITIONS = {None: "abs(input.text) > `0`", False: "input.no", True: "input.yes"}
REPORTS = {
    "recorded": (Report.RECORDED,),
    "kept": (Report.KEPT,),
    "released": (Report.STALE, Report.RECORDED),
    "stale": (Report.STALE, Report.REPEATED),
}


@st.composite
def plans(draw: st.DrawFn) -> list[ModelStep]:
    """Up to eight steps; each may wait for any of those before it."""
    found: list[ModelStep] = []
    for index in range(draw(st.integers(1, 8))):
        earlier = [made.key for made in found]
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        triggers = ["all_completed", "all_settled", *(["any_failed"] if after else [])]
        condition = draw(st.sampled_from([True, True, True, False, None]))
        found.append(
            ModelStep(
                key=f"s{index}",
                after=tuple(after),
                trigger=draw(st.sampled_from(triggers)),  # type: ignore[arg-type]
                # Which of several steps that begin together a failing condition finds begun is not defined.
                on_failure="continue" if condition is None else draw(st.sampled_from(["fail", "continue", "pause"])),
                max_attempts=draw(st.integers(1, 2)),
                max_lost=draw(st.integers(1, 2)),
                delayed=draw(st.booleans()),
                condition=condition,
            ),
        )
    return found


def _document(planned: ModelStep) -> dict[str, Any]:
    """The step as an author would write it."""
    return step(
        planned.key,
        " ".join(planned.after),
        trigger=planned.trigger,
        on_failure=planned.on_failure,
        when=CONDITIONS[planned.condition],
        retry={
            "max_attempts": planned.max_attempts,
            "max_lost": planned.max_lost,
            "initial_delay_s": 60.0 if planned.delayed else 0.0,
        },
    )


class World:
    """The product on a database and the model beside it; every operation is done to both."""

    def __init__(self, database: Database, session: Session, plan: list[ModelStep]) -> None:
        self.database, self.rows = database, Rows(database)
        limits = Settings()
        database.after_commit.clear()
        self.worker = WorkerDouble(database, limits)
        self.sweeper = Sweeper(database, limits)
        self.controller = WorkflowController(session, settings=limits)
        self.model = Model({planned.key: planned for planned in plan})
        self.bodies: list[tuple[str, int, AttemptRef]] = []
        document = {"yes": True, "no": False, "text": "x"}
        steps = [_document(planned) for planned in plan]
        self.run_id = self.controller.enqueue_workflow(steps, task_description="x", input=document)
        self.compare()

    # operations

    def enabled(self) -> list[tuple[str, Any]]:
        """What could happen now, the likelier more than once."""
        model = self.model
        found: list[tuple[str, Any]] = [("claim", index) for index in range(len(self.worker.queue))] * 2
        for body in self.bodies:
            found += [("complete", body), ("complete", body), ("fail", body)]
            held = model.steps[body[0]]
            if held.drains:
                found.append(("interrupted", body))
            elif held.claimed and held.attempt == body[1]:
                found.append(("lose", body))
        if model.state is WorkflowState.EXECUTING:
            found += [("retry", key) for key, planned in model.steps.items() if planned.retrying]
            found.append(("pause", None))
        if model.state is WorkflowState.PAUSED:
            found += [("resume", None)] * 3
        return found

    def do(self, operation: tuple[str, Any]) -> None:
        """Do it to both and compare."""
        name, subject = operation
        getattr(self, f"_{name}")(subject)
        self.compare()

    def _claim(self, index: int) -> None:
        key = self.worker.queue[index].key
        ref, claim = self.worker.offer(key)
        attempt = int(ref.task_id.rpartition(".")[2])
        assert claim.granted is self.model.claimable(key, attempt), claim.reason
        if claim.granted:
            self.model.claim(key)
            self.bodies.append((key, attempt, ref))

    def _believed(self, body: tuple[str, int, AttemptRef]) -> bool:
        """Whether the body is the one that the step knows of, as its holder or as the one it waits for."""
        planned = self.model.steps[body[0]]
        row = self.rows.step(self.run_id, body[0])
        return (planned.claimed and row.claim_token == body[2].token) or (
            planned.drains and row.drain_token == body[2].token
        )

    def _complete(self, body: tuple[str, int, AttemptRef]) -> None:
        self.bodies.remove(body)
        believed = self._believed(body)
        report = self.worker.attempts.complete(body[2], {"by": body[1]})
        assert report in REPORTS[self.model.complete(body[0]) if believed else "stale"]

    def _fail(self, body: tuple[str, int, AttemptRef]) -> None:
        self.bodies.remove(body)
        believed = self._believed(body)
        report = self.worker.attempts.fail(body[2], Failure("error", "ValueError: no"))
        assert report in REPORTS[self.model.fail(body[0]) if believed else "stale"]

    def _interrupted(self, body: tuple[str, int, AttemptRef]) -> None:
        self.bodies.remove(body)
        believed = self._believed(body)
        self.worker.attempts.fail(body[2], Failure("interrupted", "told to stop"))
        if believed:
            self.model.interrupted(body[0])

    def _lose(self, body: tuple[str, int, AttemptRef]) -> None:
        self.rows.make_due(self.run_id, body[0], "lease_until")
        assert self.sweeper.sweep().lost == 1
        self.model.lose(body[0])

    def _retry(self, key: str) -> None:
        self.rows.make_due(self.run_id, key, "retry_at")
        assert self.sweeper.sweep().retried == 1
        self.model.retry(key)

    def _pause(self, _: None) -> None:
        self.controller.pause_workflow(self.run_id, mode="drain")
        self.model.pause()

    def _resume(self, _: None) -> None:
        self.controller.resume_workflow(self.run_id)
        self.model.resume()

    def cancel(self) -> None:
        """End it where it stands."""
        if self.controller.can_cancel(self.run_id):
            self.controller.cancel_workflow(self.run_id)
            self.model.cancel()
        self.compare()

    # comparison

    def compare(self) -> None:
        """The rows are what the model says."""
        run, model = self.rows.run(self.run_id), self.model
        assert self.rows.states(self.run_id) == {key: str(planned.state) for key, planned in model.steps.items()}
        assert (run.status, run.open_steps) == (model.state, model.open_steps)
        for key, planned in model.steps.items():
            row = self.rows.step(self.run_id, key)
            assert (row.retry_at is not None) is planned.retrying
            if planned.settled:
                continue
            assert (row.attempt, row.failures, row.losses) == (planned.attempt, planned.failures, planned.losses)
            assert (row.claim_token is not None, row.drain_token is not None) == (planned.claimed, planned.drains)
            if model.state is WorkflowState.EXECUTING and planned.state is StepState.PENDING and not planned.attempt:
                counts = model.counts(planned)
                assert (row.open_deps, row.unmet_deps, row.failed_deps) == (counts.open, counts.unmet, counts.failed)
        sent = {(dispatch.key, dispatch.attempt) for dispatch in self.worker.queue}
        assert model.dispatched() <= sent


def _play(database: Database, plan: list[ModelStep], data: st.DataObject) -> None:
    with database.session() as session:
        world = World(database, session, plan)
        for _ in range(OPERATIONS):
            enabled = world.enabled()
            if not enabled:
                break
            world.do(data.draw(st.sampled_from(enabled), label="operation"))
        if not enabled:
            assert world.model.state in (WorkflowState.COMPLETED, WorkflowState.FAILED)  # it can always end
        world.cancel()
        assert not world.sweeper.sweep()
    check(database)
    forget_everything(database)  # the checker replays only the next run


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
@settings(max_examples=80, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_sqlite_agrees_with_the_model(unchecked_database: Database, plan: list[ModelStep], data: st.DataObject) -> None:
    _play(unchecked_database, plan, data)


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@settings(max_examples=20, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_postgresql_agrees_with_the_model(
    unchecked_database: Database,
    plan: list[ModelStep],
    data: st.DataObject,
) -> None:
    _play(unchecked_database, plan, data)
