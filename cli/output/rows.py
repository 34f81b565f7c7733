"""Status documents and history as cells of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from interlock.core.model.states import StepState

from .wording import ago, duration, elapsed_s, error_line, moment, progress_words, state_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from interlock.core.events import StateChange

__all__ = ["change_row", "headlines", "run_row", "step_row"]


def headlines(run: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str | Text]]:
    """What stands above the steps of a run: pairs of a name and a value."""
    yield "run", str(run["run_id"])
    yield "workflow", f"{run['name'] or '(unnamed)'}: {run['task_description'] or 'no description'}"
    yield "state", state_text(run["status"])
    if pause := run.get("pause"):
        draining = f", {pause['draining']} steps still draining" if pause["draining"] else ""
        yield "paused", f"by {pause['by']} {ago(pause['at'], now)}, mode {pause['mode']}{draining}"
    if run["error"]:
        yield "error", Text(error_line(run["error"]), style="red")
    yield "created", ago(run["created_at"], now)
    if run["started_at"]:
        yield "time", duration(elapsed_s(run["started_at"], run["completed_at"], now))
    yield "steps", _counted(run.get("counts", {}))


def _counted(counts: Mapping[str, int]) -> Text:
    parts = [Text(f"{count:,} ").append_text(state_text(state)) for state, count in counts.items()]
    return Text(", ").join(parts) if parts else Text("none")


def step_row(step: Mapping[str, Any], now: datetime) -> tuple[str | Text, ...]:
    """Key, state, attempt, time, task and note of a step."""
    took = duration(elapsed_s(step["started_at"], step["completed_at"], now))
    return (
        step["key"],
        state_text(step["status"]),
        str(step["attempt"] or ""),
        took,
        step["task"] or "",
        _step_note(step),
    )


def _step_note(step: Mapping[str, Any]) -> str | Text:
    if step["error"]:
        return Text(error_line(step["error"]), style="red")
    if step["status"] == StepState.RUNNING and (words := progress_words(step.get("progress"))):
        return words
    return f"on {step['claimed_by']}" if step["status"] == StepState.RUNNING and step["claimed_by"] else ""


def run_row(run: Mapping[str, Any], now: datetime) -> tuple[str | Text, ...]:
    """Id, name, state, steps done of all, age and time of a run."""
    took = duration(elapsed_s(run["started_at"], run["completed_at"], now))
    steps = f"{run['steps_completed']:,}/{run['steps']:,}"
    return str(run["run_id"]), run["name"] or "", state_text(run["status"]), steps, ago(run["created_at"], now), took


def change_row(change: StateChange) -> tuple[str | Text, ...]:
    """Seq, time, step, change, actor and reason of a state change."""
    arrow = state_text(change.to_state)
    if change.from_state is not None:
        arrow = Text(f"{change.from_state.replace('_', ' ')} → ", style="dim").append_text(arrow)
    at = moment(change.created_at)
    time = at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else ""
    step = Text("workflow", style="bold") if change.step_key is None else change.step_key
    return str(change.seq), time, step, arrow, change.transitioned_by, error_line(change.reason)
