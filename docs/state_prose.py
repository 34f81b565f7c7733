"""What the states mean and who moves along each edge, in words: the part of the page that no table can give.

A test holds it against the tables: every state and every edge has its words, and nothing else has.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from interlock.core.model.states import StepState, WorkflowState

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STEP_EDGES", "STEP_MEANINGS", "WORKFLOW_EDGES", "WORKFLOW_MEANINGS"]

_W, _S = WorkflowState, StepState

WORKFLOW_MEANINGS: Final[Mapping[WorkflowState, str]] = MappingProxyType(
    {
        _W.DRAFT: "Created and not started. A plan may be set, and set again. A run that was enqueued with a start time "
        "waits here for it.",
        _W.PLANNING: "Somebody works out the plan, which may still be set and replaced: `create` leaves a run here for the "
        "code, a Celery task too, that makes its plan. `enqueue` passes through on its way, in one transaction.",
        _W.EXECUTING: "Steps are dispatched, claimed and settled. Only now may a worker claim one.",
        _W.PAUSED: "No step starts. What still runs is told to stop, or is let finish, by the mode of the pause; a "
        "result that comes all the same is stored for the resume. Retries wait, and the deadline stands still.",
        _W.WAITING_APPROVAL: "A step waits for a person's decision, and nothing else can move: no step runs, is due, or "
        "was paused by a person.",
        _W.COMPLETED: "Every step is settled, and no failure counts against the run.",
        _W.FAILED: "A step failed for good, or the deadline passed. What was unsettled is cancelled.",
        _W.CANCELLED: "Somebody ended it. What was unsettled is cancelled.",
    },
)

WORKFLOW_EDGES: Final[Mapping[WorkflowState, Mapping[WorkflowState, str]]] = MappingProxyType(
    {
        _W.DRAFT: {
            _W.PLANNING: "`enqueue`, `create`, `start`, `rerun` (of the new run); the sweeper, when the start time has come.",
            _W.CANCELLED: "`cancel`.",
        },
        _W.PLANNING: {
            _W.EXECUTING: "`start`; `enqueue`, `rerun` and the sweeper in the transaction that brought it here. The steps enter "
            "the history, and those that wait for nothing are dispatched.",
            _W.FAILED: "Code of your own that could not make a plan, through the state machine. No verb does it.",
            _W.CANCELLED: "`cancel`.",
        },
        _W.EXECUTING: {
            _W.PAUSED: "`pause`; the engine, when a step with `on_failure: pause` fails for good.",
            _W.WAITING_APPROVAL: "The engine, when nothing can go on without an approval.",
            _W.COMPLETED: "The engine, in the transaction that settles the last step.",
            _W.FAILED: "The engine, when a step with `on_failure: fail` fails for good, or the run's deadline has passed.",
            _W.CANCELLED: "`cancel`; `reject`, or a request's deadline that rejects, unless the plan goes on with the rejection.",
        },
        _W.PAUSED: {
            _W.EXECUTING: "`resume`, with everything that waited.",
            _W.CANCELLED: "`cancel`.",
        },
        _W.WAITING_APPROVAL: {
            _W.EXECUTING: "`approve`; `reject`, where the plan goes on with the rejection; the sweeper, when a request's "
            "deadline has passed and its default says so.",
            _W.CANCELLED: "`cancel`; `reject`; the sweeper, when the deadline of a request (its default is to reject) or "
            "of the run has passed.",
        },
    },
)

STEP_MEANINGS: Final[Mapping[StepState, str]] = MappingProxyType(
    {
        _S.PENDING: "It waits for other steps, or its first message is under way and no worker has claimed it yet.",
        _S.RUNNING: "An attempt is queued or held. Whether a worker holds it is a column (`claimed_by`), not a state: "
        "after a resume or a retry a step is running at once, and claimed when a worker is free.",
        _S.PAUSED: "It ran when its workflow was paused, or it was paused by itself (`paused_by`); then the resume of the "
        "workflow leaves it paused. Its old attempt may still be finishing.",
        _S.WAITING_APPROVAL: "It waits for a person's decision: before its task is sent, because its body asked for one, "
        "or as a step that is only this decision.",
        _S.COMPLETED: "Its result is stored.",
        _S.FAILED: "Its attempt ended without a result. It is settled unless a retry is due (`retry_at`); a person may "
        "still retry or settle it while its workflow goes on.",
        _S.SKIPPED: "It was not wanted, or can no longer start. It never ran.",
        _S.CANCELLED: "Its workflow ended before it did, or it was revoked from outside.",
    },
)

STEP_EDGES: Final[Mapping[StepState, Mapping[StepState, str]]] = MappingProxyType(
    {
        _S.PENDING: {
            _S.RUNNING: "A worker that claims the first attempt; the engine, where no worker is needed: on the way to "
            "waiting_approval, for a step done once per item of a list, for a result that a rerun takes over, and on the "
            "way to failed where it cannot even start (its condition or its arguments cannot be evaluated, no worker "
            "knows its task, its message expired).",
            _S.SKIPPED: "The engine: its condition is false, or its trigger can no longer hold. The steps behind it follow "
            "in the same transaction.",
            _S.CANCELLED: "The end of its workflow, by `cancel`, by a rejection, by a failure or by the deadline; a revoke "
            "that is not Interlock's.",
        },
        _S.RUNNING: {
            _S.PAUSED: "The pause of its workflow; `pause` of the step alone; a revoke that is not Interlock's, where the "
            "plan says so (`on_external_revoke`).",
            _S.WAITING_APPROVAL: "The engine, where the plan wants an approval first; the worker that holds it, when its "
            "body asks for one.",
            _S.COMPLETED: "The worker that holds it, when the task returns. The engine: with a result that came while it "
            "was paused, a decision, the results of all its items, a result that `settle` gives it, or one that a rerun "
            "takes over.",
            _S.FAILED: "The worker that holds it, when the task raises, runs over its time limit, asks Celery for a retry, "
            "or returns what is not JSON or too large; the engine, when the holder's process died, its lease ran out or "
            "its time is over.",
            _S.CANCELLED: "The end of its workflow, and its body is told to stop; a revoke that is not Interlock's.",
        },
        _S.PAUSED: {
            _S.RUNNING: "`resume`, of the workflow, or of the step where it was paused by itself: a new attempt under a "
            "new task id, or on to completed or failed by what came meanwhile.",
            _S.CANCELLED: "The end of its workflow.",
        },
        _S.WAITING_APPROVAL: {
            _S.RUNNING: "`approve`; `reject`, where the plan goes on with the rejection; the sweeper, when the request's "
            "deadline has passed.",
            _S.CANCELLED: "The end of its workflow.",
        },
        _S.FAILED: {
            _S.RUNNING: "A retry by policy: a new attempt under a new task id, in the same transaction where no delay is "
            "wanted, else by the sweeper when it is due. `retry`: the same, at once. `settle`: on the way to completed.",
        },
    },
)
