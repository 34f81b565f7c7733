"""The sentences of `explain`: what is the case, since when and by whom, and the command to type, if any.

Over 400 lines, because it is one table of sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.states import WorkflowState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Row

__all__ = ["KINDS", "ROUTED_QUEUE", "SILENT_S", "Step", "more", "of_run", "of_step", "silent_engine", "summary"]

SILENT_S: Final = 60.0
"""Seconds after which a timer that is over means that no engine sweeps: sweeps are seconds apart."""

ROUTED_QUEUE: Final = "the queue its task is routed to"
"""What is said of a queue that the plan does not name: only the app knows its routes."""

_COUNTED: Final[Mapping[str, str]] = {
    "failed": "failed",
    "draining": "told to stop and not ended yet",
    "approval": "waiting for an approval",
    "step_paused": "paused by hand",
    "held": "in the hands of a worker",
    "retry": "waiting to be tried again",
    "queued": "waiting for a worker",
    "parallel_limit": "ready but over the limit of parallel work",
    "ready": "ready to be sent",
    "items": "waiting for their items",
    "dependencies": "waiting for other steps",
}

KINDS: Final = tuple(_COUNTED)
"""What a step can wait for, the most telling first."""

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_LONGEST_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of a step.

    Attributes:
        row: Its columns, with `kind`.
        run: Those of its run, with `now`.
        move: How it came to the state it is in.
        request: What it has asked people and what has not taken effect.
        waits_for: Key and state of some of the steps that it waits for.
        ready_since: When it had nothing more to wait for.
        guard: The guard that keeps it from starting.
    """

    row: Row[Any]
    run: Row[Any]
    move: Row[Any] | None
    request: Row[Any] | None
    waits_for: Sequence[tuple[str, str]]
    ready_since: datetime
    guard: str | None

    def at(self, time: datetime | None) -> str:
        """A time in words, and how long ago or ahead it is."""
        return "an unknown time" if time is None else f"{clock_text(time)} ({_distance(time, self.run.now)})"

    @property
    def since(self) -> datetime | None:
        """When it came to the state it is in."""
        return None if self.move is None else self.move.created_at

    def command(self, verb: str) -> str:
        """What to type to do `verb` to this step."""
        return f"interlock {verb} {self.run.id} {self.row.key}"


def clock_text(time: datetime) -> str:
    """A time as operators read it."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A duration in the one unit that matters."""
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if round(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- the run ---------------------------------------------------------------------------------------------------------


def of_run(run: Row[Any], move: Row[Any] | None, guard: str | None, draining: int) -> dict[str, Any] | None:
    """What the run's own state says; None where its steps say it."""
    state = WorkflowState(run.status)
    tell = _RUN_WORDS.get(state)
    return None if tell is None else tell(run, move, guard, draining)


def _draft(run: Row[Any], move: Row[Any] | None, guard: str | None, draining: int) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    stop = f"To give it up: interlock cancel {run.id}"
    facts = {"start_at": _iso(run.start_at), "guard": guard}
    if run.start_at is None:
        text = (
            f"It is a draft, and nobody has started it.{_guarded(guard)} To start it: client.start({run.id!r}). {stop}"
        )
        return _reason("not_started", text, **facts)
    when = f"{clock_text(run.start_at)} ({_distance(run.start_at, run.now)})"
    if run.start_at > run.now:
        return _reason("start_time", f"It waits for its start time, {when}.{_guarded(guard)} {stop}", **facts)
    if guard is not None:
        text = f"Its start time was {when}, but guard {guard!r} does not let it start; every sweep tries again. {stop}"
        return _reason("guard", text, **facts)
    overdue_s = (run.now - run.start_at).total_seconds()
    advice = "" if overdue_s < SILENT_S else " No engine has started it: is a worker running?"
    return _reason("start_time", f"Its start time was {when}; the next sweep starts it.{advice}", **facts)


def _planning(run: Row[Any], move: Row[Any] | None, guard: str | None, draining: int) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    since = "" if move is None else f" since {clock_text(move.created_at)} ({_distance(move.created_at, run.now)})"
    who = "" if move is None else f", asked for by {move.transitioned_by}"
    lacks = " It has no valid plan yet." if guard == "has_valid_plan" else _guarded(guard)
    text = f"Its plan is being made{since}{who}.{lacks} Whoever makes it calls set_plan and then start"
    return _reason("planning", f"{text}. To give it up: interlock cancel {run.id}", guard=guard)


def _paused(run: Row[Any], move: Row[Any] | None, guard: str | None, draining: int) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    by = run.paused_by or (move.transitioned_by if move is not None else "somebody")
    at = run.paused_at or (move.created_at if move is not None else None)
    why = None if move is None else move.transition_reason
    text = f"Paused by {by}" + ("" if at is None else f" at {clock_text(at)} ({_distance(at, run.now)})")
    text += f": {_short(why)}." if why else ", no reason given."
    if draining:
        text += f" {_count(draining, 'step')} told to stop {'has' if draining == 1 else 'have'} not ended yet."
    text += f" To let it go on: interlock resume {run.id}"
    return _reason("paused", text, by=by, at=_iso(at), reason=why, mode=run.pause_mode, draining=draining)


def _ended(run: Row[Any], move: Row[Any] | None, guard: str | None, draining: int) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    by = None if move is None else move.transitioned_by
    why = run.error or (None if move is None else move.transition_reason)
    text = f"It is {run.status}"
    if run.completed_at is not None:
        text += f" since {clock_text(run.completed_at)} ({_distance(run.completed_at, run.now)})"
    if run.status == WorkflowState.COMPLETED:
        text += f". Its results: interlock result {run.id}"
    else:
        text += f", by {by}" if by and run.status == WorkflowState.CANCELLED else ""
        text += (
            f": {_short(why)}" if why else ""
        ) + f". To run it again with what it completed: interlock rerun {run.id}"
    return _reason(run.status, text, by=by, at=_iso(run.completed_at), reason=why)


_RUN_WORDS: Final[Mapping[WorkflowState, Callable[..., dict[str, Any]]]] = {
    WorkflowState.DRAFT: _draft,
    WorkflowState.PLANNING: _planning,
    WorkflowState.PAUSED: _paused,
    WorkflowState.COMPLETED: _ended,
    WorkflowState.FAILED: _ended,
    WorkflowState.CANCELLED: _ended,
}


def deadline(run: Row[Any]) -> dict[str, Any]:
    """When the run will be ended for lateness."""
    when = f"{clock_text(run.deadline_at)} ({_distance(run.deadline_at, run.now)})"
    return _reason("deadline", f"Whatever is not done at its deadline, {when}, ends with it.", at=_iso(run.deadline_at))


def nothing(run: Row[Any]) -> dict[str, Any]:
    """What is said of a live run in which no step waits for anything."""
    text = (
        "No step runs, is due or waits for a person. The engine looks at such a workflow at its next sweep, within seconds; "
        f"if nothing changes, no engine is running: start a worker. Its steps: interlock status {run.id}"
    )
    return _reason("nothing", text)


def silent_engine(run: Row[Any], due: datetime) -> dict[str, Any]:
    """What is said where something is due for so long that no engine can be looking."""
    late = duration((run.now - due).total_seconds())
    text = (
        f"Something here was due {late} ago, at {clock_text(due)}, and no engine has done it: no worker with an engine process "
        "runs on this database, or it cannot keep up. Start one: celery -A your_app worker"
    )
    return _reason("no_engine", text, due_at=_iso(due))


def summary(run: Row[Any], counts: Mapping[str, int], reasons: Sequence[Mapping[str, Any]]) -> str:
    """One sentence for the whole."""
    name = f"Workflow {run.name}" if run.name else "The workflow"
    words = f"{name} is {run.status.replace('_', ' ')}"
    if counts:
        return f"{words}: " + ", ".join(_tally(kind, counts[kind]) for kind in KINDS if kind in counts) + "."
    first = str(reasons[0]["text"]).split(". ")[0].rstrip(".") if reasons else ""
    return f"{words}. {first}." if first else f"{words}."


def _tally(kind: str, count: int) -> str:
    return f"{_count(count, 'step')} {_COUNTED[kind]}"


def more(kind: str, count: int) -> dict[str, Any]:
    """A line for the steps of a kind that are not shown."""
    return _reason("more", f"And {_count(count, 'more step')} {_COUNTED[kind]}.", of=kind, count=count)


# --- its steps -------------------------------------------------------------------------------------------------------


def of_step(step: Step) -> dict[str, Any]:
    """Why a step does not move, or what is done with it."""
    return _STEP_WORDS[step.row.kind](step)


def _approval(step: Step) -> dict[str, Any]:
    row, asked = step.row, step.request
    if asked is None:
        text = f"Step {row.key} waits for an approval that nobody was asked for: it was moved by hand. Cancel, or move it on."
        return _of(step, text)
    spec = asked.spec or {}
    approvers = list(spec.get("approvers") or ())
    facts = {
        "since": _iso(asked.requested_at),
        "prompt": spec.get("prompt"),
        "approvers": approvers,
        "deadline_at": _iso(asked.deadline_at),
        "decision": asked.decision,
    }
    if asked.decision is not None:
        when = "the workflow is resumed" if step.run.status == WorkflowState.PAUSED else "there is a place for it"
        text = f"Step {row.key} was {asked.decision} by {asked.decided_by}; it goes on when {when}."
        return _of(step, text, **facts)
    prompt = f": “{_short(spec['prompt'])}”" if spec.get("prompt") else ""
    who = " or ".join(approvers) if approvers else "anyone who may send commands"
    text = f"Step {row.key} waits for an approval since {step.at(asked.requested_at)}{prompt}. {who} may decide"
    text += f", as guard {spec['guard']!r} lets them" if spec.get("guard") else ""
    if asked.deadline_at is not None:
        default = "approved" if spec.get("default") == "approve" else "rejected"
        text += f"; undecided, it is {default} at {step.at(asked.deadline_at)}"
    text += f". Type: {step.command('approve')} (or reject)"
    return _of(step, text, **facts)


def _step_paused(step: Step) -> dict[str, Any]:
    why = None if step.move is None else step.move.transition_reason
    text = f"Step {step.row.key} was paused by itself, by {step.row.paused_by}, at {step.at(step.since)}"
    text += f": {_short(why)}" if why else ""
    text += f". It stays so, also when the workflow is resumed, until: {step.command('resume')}"
    return _of(step, text, by=step.row.paused_by, since=_iso(step.since), reason=why)


def _draining(step: Step) -> dict[str, Any]:
    until = step.row.drain_until
    text = f"Step {step.row.key} was told to stop at {step.at(step.since)}, and its code still runs. "
    text += f"It is waited for until {step.at(until)}, longer while its worker says that it lives."
    return _of(step, text, since=_iso(step.since), until=_iso(until))


def _retry(step: Step) -> dict[str, Any]:
    row = step.row
    text = f"Step {row.key} failed at {step.at(step.since)}: {_short(row.error)}. It is tried again at {step.at(row.retry_at)}"
    text += f"; not to wait: {step.command('retry')}"
    return _of(step, text, error=row.error, failures=row.failures, retry_at=_iso(row.retry_at))


def _failed(step: Step) -> dict[str, Any]:
    row = step.row
    text = f"Step {row.key} failed at {step.at(step.since)}: {_short(row.error)}."
    if row.late_kind is not None:
        did = {"retry": "tried again", "settle": "given its result by hand"}.get(row.late_kind, row.late_kind)
        text += f" It will be {did} when the workflow is resumed."
    elif step.run.status in (WorkflowState.PAUSED, WorkflowState.EXECUTING):
        text += f" To try it again: {step.command('retry')}."
        text += f" To give it a result by hand: {step.command('settle')} RESULT --reason WHY"
    return _of(step, text, error=row.error, failures=row.failures, since=_iso(step.since), intent=row.late_kind)


def _held(step: Step) -> dict[str, Any]:
    row = step.row
    text = f"Step {row.key} is run by {row.claimed_by} since {step.at(row.claimed_at)}, attempt {row.attempt}"
    text += f", {_progress(row.progress)}" if row.progress else ""
    carrier = row.carrier_id if row.attempt == 1 else None
    text += f"; its process came to it on the message {carrier}, which is what Celery shows" if carrier else ""
    if row.lease_until is not None and row.lease_until < step.run.now:
        text += f". The worker has not been heard of: its lease ran out at {step.at(row.lease_until)}"
        text += "; the next sweep calls the attempt lost"
    else:
        text += f". The worker's lease holds until {step.at(row.lease_until)}, and longer while it lives"
    text += f"; its time limit is {step.at(row.timeout_at)}" if row.timeout_at is not None else ""
    return _of(
        step,
        f"{text}.",
        worker=row.claimed_by,
        since=_iso(row.claimed_at),
        attempt=row.attempt,
        carrier=carrier,
        lease_until=_iso(row.lease_until),
        timeout_at=_iso(row.timeout_at),
        progress=row.progress,
    )


def _queued(step: Step) -> dict[str, Any]:
    row = step.row
    since = step.ready_since if row.status == "pending" else (step.since or step.ready_since)
    where = f"queue {row.queue}" if row.queue else ROUTED_QUEUE
    text = f"Step {row.key} waits in {where} for a worker, since {step.at(since)}, attempt {row.attempt}. "
    if step.guard is not None:
        text = f"Guard {step.guard!r} does not let step {row.key} start, ready since {step.at(since)}. "
    sent = {1: "once", 2: "twice"}.get(row.dispatches, f"{row.dispatches} times")
    text += f"Its message was sent {sent}; unclaimed, it is sent again at {step.at(row.dispatch_check_at)}."
    facts = _of(
        step,
        text,
        since=_iso(since),
        attempt=row.attempt,
        task=row.task,
        queue=row.queue,
        dispatches=row.dispatches,
        next_dispatch_at=_iso(row.dispatch_check_at),
    )
    return facts if step.guard is None else {**facts, "kind": "guard", "guard": step.guard}


def _parallel_limit(step: Step) -> dict[str, Any]:
    limit = step.row.limit or step.run.max_parallel
    what = "items of its list" if step.row.limit else "steps of the workflow"
    text = f"Step {step.row.key} is ready, and waits for a place: at most {limit} {what} are in work at once."
    return _of(step, text, limit=limit)


def _ready(step: Step) -> dict[str, Any]:
    return _of(
        step, f"Step {step.row.key} is ready and not sent yet; the engine does it at its next sweep, within seconds."
    )


def _items(step: Step) -> dict[str, Any]:
    text = f"Step {step.row.key} waits for {_count(step.row.open_deps, 'item')}: {_listed(step)}."
    return _of(step, text, open=step.row.open_deps, waits_for=[key for key, _ in step.waits_for])


def _waits_for_steps(step: Step) -> dict[str, Any]:
    text = f"Step {step.row.key} waits for {_listed(step)}."
    return _of(step, text, open=step.row.open_deps, waits_for=[key for key, _ in step.waits_for])


_STEP_WORDS: Final[Mapping[str, Callable[[Step], dict[str, Any]]]] = {
    "approval": _approval,
    "step_paused": _step_paused,
    "failed": _failed,
    "draining": _draining,
    "held": _held,
    "retry": _retry,
    "queued": _queued,
    "parallel_limit": _parallel_limit,
    "ready": _ready,
    "items": _items,
    "dependencies": _waits_for_steps,
}


# --- pieces ----------------------------------------------------------------------------------------------------------


def _of(step: Step, text: str, **facts: Any) -> dict[str, Any]:
    return {**_reason(step.row.kind, text, **facts), "step": step.row.key}


def _reason(kind: str, text: str, **facts: Any) -> dict[str, Any]:
    return {"kind": kind, "step": None, "text": text, **facts}


def _listed(step: Step) -> str:
    named = [f"{key} ({state.replace('_', ' ')})" for key, state in step.waits_for]
    left = step.row.open_deps - len(named)
    return ", ".join(named) + (f" and {left:,} more" if left > 0 and named else "") or f"{step.row.open_deps:,} others"


def _guarded(guard: str | None) -> str:
    return "" if guard is None else f" Guard {guard!r} would not let it start now."


def _progress(progress: Mapping[str, Any]) -> str:
    done, total, message = (progress.get(name) for name in ("done", "total", "message"))
    return f"{done} of {total} done" + (f" ({_short(str(message))})" if message else "")


def _distance(time: datetime, now: datetime) -> str:
    seconds = (now - time).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _short(text: str | None) -> str:
    line = " ".join((text or "nothing was said").split())
    return line if len(line) <= _LONGEST_ERROR else f"{line[:_LONGEST_ERROR]}…"


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
