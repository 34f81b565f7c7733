"""Tasks whose authors know that they may run as a step: they keep checkpoints, show progress, ask people, and heed a stop.

They belong to the app of `tasks_app`, and write to the same ledger.
"""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from redis import Redis

from interlock import Client, Step, StepInterrupted, Workflow, current_step
from tests.worker.bodies import note, pass_gate
from tests.worker.tasks_app import app

if TYPE_CHECKING:
    from interlock import CurrentStep

__all__ = ["app"]


def this_step() -> CurrentStep:
    """The step that runs here.

    Raises:
        LookupError: It is called outside of one.
    """
    step = current_step()
    if step is None:
        raise LookupError
    return step


# --- identity


@app.task
def whoami(fail_until: int) -> list[Any]:
    """Say who it is, and fail before the attempt `fail_until`."""
    step = this_step()
    note(f"{step.attempt} {step.task_id} {step.idempotency_key}")
    if step.attempt < fail_until:
        raise ValueError(step.attempt)
    return [step.run_id, step.step_id, step.session_id, step.key, step.attempt]


@app.task
def outside() -> None:
    """Say whether it is a step, wherever it runs."""
    note("no step" if current_step() is None else "a step")


# --- checkpoints, progress, stopping


@app.task
def walk(total: int, trouble_at: int, trouble: str) -> list[int]:
    """Go on from the last checkpoint to `total`; in the first attempt there is trouble at `trouble_at`."""
    step = this_step()
    start = step.last_checkpoint or 0
    for item in range(start, total):
        note(f"item {item}")
        if item == trouble_at and step.attempt == 1:
            _trouble(trouble)
        step.checkpoint(item + 1)
        step.progress(item + 1, total, f"item {item}")
    return [start, step.attempt]


def _trouble(kind: str) -> None:
    if kind == "raise":
        raise RuntimeError(kind)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    pass_gate(kind)


@app.task
def tidy(gate: str) -> Any:
    """Save what was done when told to stop; another attempt returns what was saved."""
    step = this_step()
    if step.last_checkpoint is not None:
        return step.last_checkpoint
    try:
        note("begin")
        pass_gate(gate)
    except StepInterrupted:
        step.checkpoint({"saved": "while stopping", "attempt": step.attempt})
        step.progress(1, 2, "tidied")
        note("tidied")
        raise
    return "undisturbed"


@app.task
def hasty(limit: int) -> list[int]:
    """Do nothing but save how far it is, so that a stop comes while it saves."""
    step = this_step()
    start = step.last_checkpoint or 0
    try:
        note("begin")
        for count in range(start, limit):
            step.checkpoint(count + 1)
    except Exception as stop:
        step.checkpoint(step.last_checkpoint + 1)  # the connection still works
        note(f"stopped by {type(stop).__name__}")
        raise
    return [start, limit]


@app.task
def shows_progress(gate: str) -> None:
    """Be half done until the gate opens."""
    this_step().progress(5, 10, "half")
    note("begin")
    pass_gate(gate)


@app.task
def polite(gate: str, answer: str) -> str | None:
    """Ask whether to stop while waiting at the gate."""
    step = this_step()
    note("begin")
    with closing(Redis.from_url(os.environ["TEST_LEDGER_URL"])) as redis:
        while redis.blmove(f"gate:{gate}", f"gate:{gate}", 1) is None:
            if step.should_stop():
                note("asked to stop")
                return answer
    return None


@app.task
def stopped_and_knows(gate: str) -> None:
    """Ask after the interruption as well."""
    try:
        note("begin")
        pass_gate(gate)
    except StepInterrupted:
        note(f"should stop: {this_step().should_stop()}")
        raise


@app.task
def superseded(gate: str) -> int:
    """In the first attempt, try to save after another one has taken over."""
    step = this_step()
    note(f"begin {step.attempt}")
    if step.attempt == 1:
        pass_gate(gate)
        try:
            step.checkpoint("old")
        except StepInterrupted:
            note("superseded")
            raise
    return step.attempt


@app.task
def saves_badly(kind: str) -> None:
    """Save what cannot be saved."""
    this_step().checkpoint({"deep": [object()]} if kind == "object" else "x" * 2_000_000)


# --- questions


@app.task
def asks(questions: list[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask the questions, one after the other, and return the decisions."""
    step = this_step()
    note(f"attempt {step.attempt}")
    return [asdict(step.request_approval(f"{name}?", name=name, **options)) for name in questions]


@app.task
def asks_with_nul() -> bool:
    """Ask what no database stores."""
    note("asks")
    return this_step().request_approval("a\0b").approved


@app.task
def asks_after_a_gate(gate: str) -> bool:
    """Wait, then ask."""
    note("begin")
    pass_gate(gate)
    return this_step().request_approval("go on?").approved


@app.task
def asks_and_dies(when: str) -> list[Any]:
    """Ask; the process dies once, before it asks or when it has been answered."""
    step = this_step()
    note(f"attempt {step.attempt}")
    if when == "before" and step.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    decision = step.request_approval("go on?")
    if when == "after" and step.attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return [decision.by, step.attempt]


# --- failures


class Declined(ValueError):
    """Will be declined again."""


@app.task
def fails_until(attempt: int, kind: str = "ValueError") -> int:
    """Fail before the given attempt."""
    step = this_step()
    note(f"attempt {step.attempt}")
    if step.attempt < attempt:
        raise {"ValueError": ValueError, "Declined": Declined}[kind](step.attempt)
    return step.attempt


@app.task
def item_fails_once(item: int, bad: int) -> int:
    """Do one item; the bad one fails in its first attempt."""
    if item == bad and this_step().attempt == 1:
        raise ValueError(item)
    return item * 2


@app.task
def double(item: int) -> int:
    """Do one item."""
    return item * 2


@app.task
def double_at_gate(item: int, gate: str, free: int) -> int:
    """Do one item; all but the first `free` wait at the gate."""
    if item >= free:
        pass_gate(gate)
    return item * 2


# --- planning


@app.task
def plans(run_id: str, count: int) -> None:
    """Make a plan, as a planner does, and start it."""
    steps = [Step(f"s{number}", double, (number,)) for number in range(count)]
    with Client(app, actor="planner") as client:
        client.set_plan(run_id, Workflow("planned", "What the planner found necessary.", steps))
        client.start(run_id, "planned")


# --- what only works when somebody has mended something


@app.task
def needs_open_gate(gate: str) -> str:
    """Fail as long as the gate is shut."""
    note("try")
    with closing(Redis.from_url(os.environ["TEST_LEDGER_URL"])) as redis:
        if not redis.exists(f"gate:{gate}"):
            raise RuntimeError(gate)
    return "mended"
