"""Claims of attempts, and the reports on them: completed, failed, revoked.

A report is believed when (task_id, claim_token) are those of the step's current attempt, or of one that was told to stop and has
not been replaced yet ("draining"). Any other report is of an attempt that no longer counts: it is logged and changes nothing.
Calling any of these twice with the same arguments gives the first outcome.

A claim and a completion try the fast path first, one statement (`fast_path`). Everything else, and whatever the fast path finds
not plain, is a unit of work: the slow path.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import update

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import seconds_after
from interlock.core.machine.attempt_columns import DISPATCH_COLUMNS, NO_DRAIN, first_attempt_id
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.readiness import ReportDisposition, classify_report
from interlock.core.model.states import StepState
from interlock.core.orchestration.flow import Flow
from interlock.core.orchestration.new_attempts import dispatch

from .claims import AttemptRef, Claim, is_held_by, read_attempt, take
from .external_revokes import apply_external_revoke
from .fast_path import FastPath, Verdict
from .outcomes import Failure, record_failure
from .run_through import claim_next, live_carried, previously_claimed

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from interlock.core.database.database import Database
    from interlock.core.events import Dispatch, Effects
    from interlock.core.settings import Settings

    from .run_through import RunThroughOffer

__all__ = ["AttemptRef", "Attempts", "Claim", "Report"]

logger = logging.getLogger("interlock.attempts")

_steps = table_of_model(WorkflowStep)

# The message's own step is settled then: what its process had run through to is lost with the process, and nothing else.
_LOST_BY_REVOKE: Final = Failure("worker_lost", "its process was ended by a revoke of the message that it came on")


class Report(Enum):
    """What became of a report."""

    RECORDED = "recorded"
    DEFERRED = "deferred"  # the step is paused: applied when it resumes
    STALE = "stale"  # of an attempt that no longer counts
    REPEATED = "repeated"  # the same report was recorded before


class Attempts:
    """Claims and reports against one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._fast_path = FastPath(database, settings)

    # --- claim -------------------------------------------------------------------------------------------------------

    def claim(self, ref: AttemptRef, worker: str) -> Claim:
        """Claim the attempt for the holder of `ref.token`, if its workflow executes and nobody else has it."""
        claimed = self._fast_path.claim(ref, worker)
        if claimed is not Verdict.NOT_PLAIN:
            self._database.deliver(claimed, self._database.emitter)
            return Claim(granted=True)
        return self._database.transact(
            lambda connection, effects: self._claim(connection, effects, ref, worker), "claim", ref.task_id
        )

    def _claim(self, connection: Connection, effects: Effects, ref: AttemptRef, worker: str) -> Claim:
        unit = self._lock(connection, effects, ref)
        if not unit.run.is_executing:
            return Claim(granted=False, reason=f"the workflow is {unit.run.status}")
        claim = take(unit, self._settings, ref, Cause(worker, "claimed"))
        if claim.granted:
            unit.finish()
        return claim

    # --- reports -----------------------------------------------------------------------------------------------------

    def complete(self, ref: AttemptRef, result: Any) -> Report:
        """Record the attempt's result, a JSON value, and everything that follows."""
        return self.complete_and_claim_next(ref, result, None)[0]

    def complete_and_claim_next(
        self, ref: AttemptRef, result: Any, offer: RunThroughOffer | None
    ) -> tuple[Report, Dispatch | None]:
        """Record the attempt's result, and in the same transaction claim the step that it makes ready, where the offer fits.

        Args:
            ref: The attempt that has ended.
            result: A JSON value.
            offer: Of its process, to run that step; None where it makes none.

        Returns:
            What became of the report, and the step that the process holds now; None where it holds none.
        """
        completion = self._fast_path.complete(ref, result, offer)
        if completion is not Verdict.NOT_PLAIN:
            self._database.deliver(completion.effects, self._database.emitter)
            return Report.RECORDED, completion.claimed
        return self._database.transact(
            lambda connection, effects: self._complete(connection, effects, ref, result, offer), "complete", ref.task_id
        )

    def fail(self, ref: AttemptRef, failure: Failure) -> Report:
        """Record that the attempt ended without a result; its policy decides what follows."""
        return self._database.transact(
            lambda connection, effects: self._fail(connection, effects, ref, failure), "fail", ref.task_id
        )

    def fail_unstarted(self, ref: AttemptRef, message: str) -> Report:
        """Record that an attempt could not even be dispatched: its arguments or its task do not exist."""
        failure = Failure("unusable", message).cut(self._settings.max_error_characters)

        def work(connection: Connection, effects: Effects) -> Report:
            unit = self._lock(connection, effects, ref)
            row = read_attempt(connection, ref.step_id)
            if not unit.run.is_executing or row is None or row.task_id != ref.task_id or row.claim_token is not None:
                return _stale(ref, row, StepState.FAILED)
            if row.status == StepState.PENDING.value:
                Flow(unit, self._settings).fail_unstarted(row.id, failure.message)
            elif row.status == StepState.RUNNING.value:
                record_failure(unit, self._settings, row, failure, Cause(ENGINE, failure.message))
            else:
                return _stale(ref, row, StepState.FAILED)
            unit.finish()
            return Report.RECORDED

        return self._database.transact(work, "refuse", ref.task_id)

    def revoked(self, ref: AttemptRef, *, terminated: bool, expired: bool, softly: bool = False) -> Report:
        """Record that a worker's MAIN process has discarded or ended the attempt by a revoke, or its message had expired.

        Our own revokes come here too; the step they stopped has moved on, so they change nothing.

        Args:
            ref: Which attempt.
            terminated: A signal was sent to its process; otherwise its message was thrown away.
            expired: The message had expired.
            softly: The signal was the soft one, so that the body may still run.
        """

        def work(connection: Connection, effects: Effects) -> Report:
            unit = self._lock(connection, effects, ref)
            if terminated and not softly and self._fail_carried(unit, ref, _LOST_BY_REVOKE):
                unit.finish()
                return Report.RECORDED
            row = read_attempt(connection, ref.step_id)
            live = row is not None and row.status in (StepState.PENDING.value, StepState.RUNNING.value)
            if not live or row.task_id != ref.task_id or (row.claim_token is not None and not terminated):
                return _stale(ref, row, StepState.CANCELLED)
            if expired:
                if not unit.run.is_executing:
                    return _stale(ref, row, StepState.FAILED)  # paused: it is sent again with the resume
                cause = Cause(ENGINE, "its message expired before a worker took it")
                unit.move_steps(
                    StepState.RUNNING,
                    cause,
                    _steps.c.id == row.id,
                    _steps.c.status == StepState.PENDING.value,
                )
                record_failure(unit, self._settings, row, Failure("error", "the message expired"), cause)
            else:
                apply_external_revoke(unit, self._settings, row, ended=terminated and not softly)
            unit.finish()
            return Report.RECORDED

        return self._database.transact(work, "revoke", ref.task_id)

    def _complete(
        self, connection: Connection, effects: Effects, ref: AttemptRef, result: Any, offer: RunThroughOffer | None
    ) -> tuple[Report, Dispatch | None]:
        unit = self._lock(connection, effects, ref)
        row = read_attempt(connection, ref.step_id)
        if row is None:
            return _stale(ref, row, StepState.COMPLETED), None
        holds = is_held_by(row, ref)
        disposition = classify_report(StepState(row.status), holds=holds, drains=_drains(row, ref))
        if disposition is ReportDisposition.DEFER:
            _end_drain(connection, row.id, late={"kind": "completed", "result": result})
            return Report.DEFERRED, None
        if disposition is ReportDisposition.RECORD:
            cause = (
                Cause(row.claimed_by or ENGINE, "completed", {"task_id": ref.task_id})
                if holds
                else Cause(ENGINE, "completed by the interrupted attempt")
            )
            Flow(unit, self._settings).complete_step(row.id, result, cause)
            # An attempt that was told to stop was to give its process back: it claims nothing more.
            claimed = claim_next(unit, self._settings, offer, cause.actor) if offer is not None and holds else None
            unit.finish()
            return Report.RECORDED, claimed
        if disposition is ReportDisposition.RELEASE:
            _end_drain(connection, row.id)
        report = _stale(ref, row, StepState.COMPLETED)
        if offer is not None and report is Report.REPEATED:  # the answer to this very offer was lost
            return report, previously_claimed(unit, offer)
        return report, None

    def process_ended(self, ref: AttemptRef, failure: Failure) -> None:
        """Record that the process ended that had taken the attempt's message: at the attempt, or at one that it had run through to.

        Args:
            ref: The message's own attempt.
            failure: How the one that ran ended.
        """

        def work(connection: Connection, effects: Effects) -> None:
            unit = self._lock(connection, effects, ref)
            if not self._fail_carried(unit, ref, failure):
                self.fail_within(unit, ref, failure)
            unit.finish()

        self._database.transact(work, "fail", ref.task_id)

    def _fail_carried(self, unit: UnitOfWork, message: AttemptRef, failure: Failure) -> bool:
        """Fail what a message's process had run through to; False where it was at the message's own attempt, or at none."""
        step_ids = live_carried(unit.connection, message.run_id, message.task_id)
        for step_id in step_ids:
            self.fail_within(unit, AttemptRef(message.run_id, step_id, first_attempt_id(step_id)), failure)
        return bool(step_ids)

    def _fail(self, connection: Connection, effects: Effects, ref: AttemptRef, failure: Failure) -> Report:
        unit = self._lock(connection, effects, ref)
        report = self.fail_within(unit, ref, failure)
        unit.finish()
        return report

    def fail_within(self, unit: UnitOfWork, ref: AttemptRef, failure: Failure) -> Report:
        """The same as `fail`, for a run that is locked; the caller finishes the unit."""
        connection = unit.connection
        failure = failure.cut(self._settings.max_error_characters)
        row = read_attempt(connection, ref.step_id)
        if row is None:
            return _stale(ref, row, StepState.FAILED)
        # Without a token it is the supervisor of the attempt's process that speaks.
        holds = is_held_by(row, ref) or (
            ref.token is None and row.task_id == ref.task_id and row.claim_token is not None
        )
        drains = _drains(row, ref) or (ref.token is None and row.drain_task_id == ref.task_id)
        disposition = classify_report(StepState(row.status), holds=holds, drains=drains, failure=failure.cause)
        if disposition is ReportDisposition.STALE:
            return _stale(ref, row, StepState.FAILED)
        if disposition is ReportDisposition.RECORD:
            self._record_failure(unit, row, failure, ref, row.claimed_by if holds else None)
        elif disposition is ReportDisposition.DEFER:
            _end_drain(connection, row.id, late={"kind": "failed", "failure": asdict(failure)})
        else:
            _end_drain(connection, row.id)
            if disposition is ReportDisposition.DISPATCH_SUCCESSOR:
                self._send_successor(unit, row.id)
        return Report.RECORDED

    def _record_failure(
        self, unit: UnitOfWork, row: Row[*tuple[Any, ...]], failure: Failure, ref: AttemptRef, worker: str | None
    ) -> None:
        if failure.cause == "revoked":
            apply_external_revoke(unit, self._settings, row, ended=True)
            return
        meta = {**failure.meta, "error": failure.message, "cause": failure.cause, "task_id": ref.task_id}
        record_failure(unit, self._settings, row, failure, Cause(worker or ENGINE, failure.reason, meta))

    def _send_successor(self, unit: UnitOfWork, step_id: str) -> None:
        """Dispatch the attempt that waited until its predecessor had ended."""
        rows = unit.connection.execute(
            update(_steps)
            .where(_steps.c.id == step_id, _steps.c.claim_token.is_(None))
            .values(dispatch_check_at=seconds_after(self._settings.redispatch_s))
            .returning(*DISPATCH_COLUMNS),
        ).all()
        dispatch(unit, rows)

    def _lock(self, connection: Connection, effects: Effects, ref: AttemptRef) -> UnitOfWork:
        return UnitOfWork.lock(connection, effects, ref.run_id, emitter=self._database.emitter)


def _drains(row: Row[*tuple[Any, ...]], ref: AttemptRef) -> bool:
    return ref.token is not None and row.drain_token == ref.token and row.drain_task_id == ref.task_id


def _end_drain(connection: Connection, step_id: str, **values: Any) -> None:
    """Write that the interrupted attempt's body has ended."""
    connection.execute(update(_steps).where(_steps.c.id == step_id).values(**NO_DRAIN, **values))


def _stale(ref: AttemptRef, row: Row[*tuple[Any, ...]] | None, outcome: StepState) -> Report:
    """What a report of `outcome` that was not recorded is: a repetition where the attempt ended so, else old news."""
    if row is not None and row.status == outcome.value and row.task_id == ref.task_id:
        return Report.REPEATED
    logger.warning(
        "ignored a report of attempt %s: the step is %s, its attempt %s",
        ref.task_id,
        row.status if row is not None else "gone",
        row.task_id if row is not None else "none",
    )
    return Report.STALE
