"""The product on a database and the model of a run beside it: every operation is done to both, and then both are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import update

from interlock.core import WorkflowController
from interlock.core.attempts.attempts import AttemptRef, Report
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.tables import ApprovalRequest
from interlock.core.database.types import seconds_after
from interlock.core.errors import InterlockError
from interlock.core.events import Effects
from interlock.core.model.states import WorkflowState
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.model.run import Run

from .comparing import modelled, ordinal, paths, stored
from .rows import Rows, step
from .worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.events import Dispatch
    from interlock.core.model.retry import FailureKind
    from tests.model.plans import Plan, StepPlan

__all__ = ["DELAY_S", "Body", "SideBySide"]

DELAY_S = 3600.0
"""Every time there is, so that nothing falls due which a test has not made due."""

LIMITS = Settings(lease_s=DELAY_S, redispatch_s=DELAY_S, redispatch_max_s=2 * DELAY_S)
CONDITIONS = {None: "abs(input.text) > `0`", False: "input.no", True: "input.yes"}
INPUT = {"yes": True, "no": False, "text": "x"}

_requests = ApprovalRequest.__table__


@dataclass(frozen=True, slots=True)
class Body:
    """An attempt that a worker was granted: its step, its ordinal, and how it reports."""

    key: str
    task: int
    ref: AttemptRef


class SideBySide:
    """One run, twice.

    Attributes:
        model: What should be.
        queue: Messages that no worker has taken yet.
        past: Every message there ever was; any of them may come once more.
        bodies: Attempts that run.
        gone: Attempts that have ended, or were given up, and may report once more.
    """

    def __init__(self, database: Database, session: Session, plan: Plan) -> None:
        database.after_commit.clear()
        self._database, self._rows = database, Rows(database)
        self._worker = WorkerDouble(database, LIMITS)
        database.after_commit.append(self._collect)
        self._sweeper = Sweeper(database, LIMITS)
        self._controller = WorkflowController(session, settings=LIMITS)
        self._effects = Effects()
        self._results: dict[str, Any] = {}
        self.queue = self._worker.queue
        self.past: list[Dispatch] = []
        self.bodies: list[Body] = []
        self.gone: list[Body] = []
        document = {"steps": [_document(one) for one in plan.steps.values()], "task_description": "x"}
        self._run_id = self._controller.enqueue_workflow(document, input=INPUT)
        self.model = Run(plan)
        self._ids = {key: self._rows.step(self._run_id, key).id for key in plan.steps}
        self._compare(begins=True)

    def _collect(self, effects: Effects) -> None:
        self._effects.dispatches += effects.dispatches
        self._effects.interrupts += effects.interrupts
        self._effects.changes += effects.changes

    def do(self, name: str, *arguments: Any, lost: bool = False) -> None:
        """Do one operation to both, and compare.

        Args:
            name: One of the methods below.
            *arguments: Its own.
            lost: Whether the process dies before it has sent what the commit asks for.
        """
        self.model.forget()
        self._effects = Effects()
        getattr(self, name)(*arguments)
        self._compare()
        if lost and self._effects.dispatches:
            del self.queue[-len(self._effects.dispatches) :]

    # --- messages and bodies -----------------------------------------------------------------------------------------

    def claim(self, place: int) -> None:
        """A worker takes a message."""
        self._claim(self.queue.pop(place))

    def claim_old(self, place: int) -> None:
        """A worker takes a message that has come before, or that was lost and found."""
        self._claim(self.past[place])

    def _claim(self, message: Dispatch) -> None:
        ref = AttemptRef(message.run_id, message.step_id, message.task_id, token=uuid4().hex)
        body = Body(message.key, ordinal(message.task_id), ref)
        granted = self._worker.attempts.claim(ref, "worker@1").granted
        assert granted is self.model.claim(body.key, body.task, ref.token)
        (self.bodies if granted else self.gone).append(body)  # one that was refused should say nothing; it may

    def claim_again(self, place: int) -> None:
        """A worker has not had the answer to its claim, and repeats it."""
        body = self.bodies[place]
        granted = self._worker.attempts.claim(body.ref, "worker@1").granted
        assert granted is self.model.claim(body.key, body.task, body.ref.token)

    def lose(self, place: int) -> None:
        """A message is lost."""
        del self.queue[place]

    def unsendable(self, place: int) -> None:
        """A message cannot be made."""
        message = self.queue.pop(place)
        ref = AttemptRef(message.run_id, message.step_id, message.task_id)
        report = self._worker.attempts.fail_unstarted(ref, "no such argument")
        assert report is self.model.unsendable(message.key, ordinal(message.task_id))

    def discard(self, place: int, reason: str) -> None:
        """A worker throws a message away that has expired, or was revoked by somebody else."""
        message = self.queue.pop(place)
        ref = AttemptRef(message.run_id, message.step_id, message.task_id)
        self._revoked(Body(message.key, ordinal(message.task_id), ref), expired=reason == "expired")

    def terminate(self, place: int, how: str) -> None:
        """Somebody else has a body killed, or told to stop."""
        softly = how == "softly"
        self._revoked(self.bodies[place] if softly else self._ends(place), terminated=True, softly=softly)

    def was_terminated(self, place: int) -> None:
        """The same of a body that had ended, or was given up, before."""
        self._revoked(self.gone[place], terminated=True)

    def _revoked(self, body: Body, *, terminated: bool = False, expired: bool = False, softly: bool = False) -> None:
        how = {"terminated": terminated, "expired": expired, "softly": softly}
        report = self._worker.attempts.revoked(body.ref, **how)
        assert report is self.model.revoked(body.key, body.task, **how)

    def complete(self, place: int) -> None:
        """A body returns."""
        self._complete(self._ends(place))

    def complete_old(self, place: int) -> None:
        """A body returns that had ended, or was given up, before."""
        self._complete(self.gone[place])

    def _complete(self, body: Body) -> None:
        result = {"of": body.task, "by": body.ref.token}
        report = self._worker.attempts.complete(body.ref, result)
        assert report is self.model.complete(body.key, body.task, body.ref.token)
        if report in (Report.RECORDED, Report.DEFERRED):
            self._results[body.key] = result

    def fail(self, place: int, kind: FailureKind) -> None:
        """A body ends without a result."""
        self._fail(self._ends(place), kind)

    def fail_old(self, place: int, kind: FailureKind) -> None:
        """A body says so once more, or long after it was given up."""
        self._fail(self.gone[place], kind)

    def is_lost(self, place: int) -> None:
        """A worker's MAIN process sees that the process of a body is gone, and knows no token."""
        body = self._ends(place)
        self._fail(
            Body(body.key, body.task, AttemptRef(self._run_id, body.ref.step_id, body.ref.task_id)), "worker_lost"
        )

    def was_lost(self, place: int) -> None:
        """It says so late, or once more."""
        body = self.gone[place]
        self._fail(
            Body(body.key, body.task, AttemptRef(self._run_id, body.ref.step_id, body.ref.task_id)), "worker_lost"
        )

    def _fail(self, body: Body, kind: FailureKind) -> None:
        delay_s = self.model.plan.steps[body.key].policy.initial_delay_s
        report = self._worker.attempts.fail(body.ref, Failure(kind, "ValueError: no", delay_s=delay_s))
        assert report is self.model.fail(body.key, body.task, body.ref.token, kind)

    def die(self, place: int) -> None:
        """A worker dies, and nobody sees it."""
        self._ends(place)

    def _ends(self, place: int) -> Body:
        body = self.bodies.pop(place)
        self.gone.append(body)
        return body

    # --- time --------------------------------------------------------------------------------------------------------

    def lease_ends(self, key: str) -> None:
        """No heartbeat has come for the holder of a step."""
        self._sweep(key, "lease_until", self.model.lease_ends)

    def runs_too_long(self, key: str) -> None:
        """The holder of a step is over its time limit."""
        self._sweep(key, "timeout_at", lambda key: self.model.lease_ends(key, "timeout"))

    def drain_ends(self, key: str) -> None:
        """No heartbeat has come for an attempt that was told to stop."""
        self._rows.make_due(self._run_id, key, "drain_until")
        self.model.drain_ends(key)

    def retry_comes(self, key: str) -> None:
        """The time of a retry has come."""
        self._sweep(key, "retry_at", self.model.retry_comes)

    def send_again(self, key: str) -> None:
        """A message is due once more."""
        self._sweep(key, "dispatch_check_at", self.model.send_again)

    def _sweep(self, key: str, timer: str, act: Callable[[str], bool]) -> None:
        self._rows.make_due(self._run_id, key, timer)
        swept = bool(self._sweeper.sweep())
        acted = act(key)
        assert swept is acted
        assert not self.model.revive()  # the sweeper looks for that as well
        if not acted:
            self._rows.set_step(self._run_id, key, **{timer: seconds_after(DELAY_S)})

    def deadline_passes(self, key: str) -> None:
        """The deadline of a question has passed."""
        self._set_deadline(key, seconds_after(-1))
        swept = bool(self._sweeper.sweep())
        acted = self.model.deadline_passes(key)
        assert swept is acted
        if acted:
            self._note_decision(key)
        else:
            self._set_deadline(key, None)

    def is_overdue(self) -> None:
        """The deadline of the run has passed."""
        self._rows.set_run(self._run_id, deadline_at=seconds_after(-1))
        swept = bool(self._sweeper.sweep())
        assert swept is self.model.is_overdue()
        if not swept:
            self._rows.set_run(self._run_id, deadline_at=None)

    def sweep(self) -> None:
        """Nothing is due."""
        assert not self._sweeper.sweep()
        assert not self.model.revive()

    def _set_deadline(self, key: str, when: Any) -> None:
        query = update(_requests).where(_requests.c.step_id == self._ids[key], _requests.c.decision.is_(None))
        self._database.transact(lambda connection, _: connection.execute(query.values(deadline_at=when)))

    # --- people ------------------------------------------------------------------------------------------------------

    def pause(self, mode: str) -> None:
        """Pause the run."""
        assert self._controller.can_pause(self._run_id) is (self.model.state is WorkflowState.EXECUTING)
        self._ask(self.model.pause(mode), lambda: self._controller.pause_workflow(self._run_id, mode=mode))

    def resume(self) -> None:
        """Resume the run."""
        assert self._controller.can_resume(self._run_id) is (self.model.state is WorkflowState.PAUSED)
        self._ask(self.model.resume(), lambda: self._controller.resume_workflow(self._run_id))

    def cancel(self) -> None:
        """Cancel the run."""
        self._ask(self.model.cancel(), lambda: self._controller.cancel_workflow(self._run_id))

    def pause_step(self, key: str, mode: str) -> None:
        """Pause a step."""
        accepted = self.model.pause_step(key, mode)
        self._ask(accepted, lambda: self._controller.pause_step(self._run_id, key, mode=mode))

    def resume_step(self, key: str) -> None:
        """Resume a step."""
        self._ask(self.model.resume_step(key), lambda: self._controller.resume_step(self._run_id, key))

    def approve(self, key: str) -> None:
        """Approve what a step asks for."""
        self._decide(key, self.model.decide(key, "approved"), lambda: self._controller.approve_step(self._run_id, key))

    def reject(self, key: str) -> None:
        """Reject what a step asks for."""
        self._decide(key, self.model.decide(key, "rejected"), lambda: self._controller.reject_step(self._run_id, key))

    def _decide(self, key: str, accepted: bool, act: Callable[[], None]) -> None:  # noqa: FBT001 - as `_ask`
        self._ask(accepted, act)
        if accepted:
            self._note_decision(key)

    def _note_decision(self, key: str) -> None:
        step = self.model.steps[key]
        if not step.plan.works or step.request == "rejected":
            self._results[key] = step.request

    def retry(self, key: str) -> None:
        """Run a failed step again."""
        self._ask(self.model.retry(key), lambda: self._controller.retry_step(self._run_id, key))

    def settle(self, key: str) -> None:
        """Give a failed step its result."""
        accepted = self.model.settle(key)
        self._ask(accepted, lambda: self._controller.settle_step(self._run_id, key, "by hand"))
        if accepted:
            self._results[key] = "by hand"

    def _ask(self, accepted: bool, act: Callable[[], None]) -> None:  # noqa: FBT001 - what the model says
        refusal = None
        try:
            act()
        except InterlockError as error:
            refusal = error
        assert accepted is (refusal is None), refusal

    # --- comparison --------------------------------------------------------------------------------------------------

    def _compare(self, *, begins: bool = False) -> None:
        """What is stored, and what the commit sent, is what the model says."""
        self.past += self._effects.dispatches
        assert stored(self._database, self._run_id) == modelled(self.model, self._results)
        sent = [(message.key, ordinal(message.task_id)) for message in self._effects.dispatches]
        assert sorted(sent) == sorted(self.model.sent)
        keys = {id_: key for key, id_ in self._ids.items()}
        stops = [(*one.task_id.rsplit(".", 1), one.mode) for one in self._effects.interrupts]
        assert sorted((keys[id_], int(task), mode) for id_, task, mode in stops) == sorted(self.model.stops)
        if not begins:  # else there are the first rows of the history, and the planning
            changes = [(one.step_key, one.from_state, one.to_state) for one in self._effects.changes]
            assert paths(changes) == paths(self.model.moves)


def _document(planned: StepPlan) -> dict[str, Any]:
    """The step as an author would write it."""
    options: dict[str, Any] = {
        "trigger": planned.trigger,
        "on_failure": planned.on_failure,
        "when": CONDITIONS[planned.condition],
        "on_external_revoke": planned.on_revoke,
        "retry": planned.policy.model_dump(mode="json"),
    }
    if planned.asks:
        options["approval"] = {"on_reject": planned.on_reject, "default": planned.default}
    document = step(planned.key, " ".join(planned.after), **options)
    return document if planned.works else {**document, "task": None}
