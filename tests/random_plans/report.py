"""What a person is shown: each run in which something is wrong, with all that is needed to see it again, and the figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.report import Board

    from .facts import Body, Said
    from .run import Failing, Summary

__all__ = ["show"]

_IN_FULL = 3
_STOOD_S = 3.0  # longer than this, and what is late is not Interlock's fault


def show(summary: Summary, board: Board) -> None:
    """Print the first failing runs in full, of the others what is wrong; all of them in full are files."""
    for place, failing in enumerate(summary.failing):
        lines = list(_lines(summary, failing))
        path = summary.folder / f"plan-{failing.case.plan.number}-{failing.case.run_id}.txt"
        path.write_text("\n".join(lines) + "\n")
        shown = lines if place < _IN_FULL else [*_head(summary, failing), f"in full: {path}"]
        for line in shown:
            board.line(line)
    for text in summary.general:
        board.line(f"WRONG: {text}")
    ends = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items()))
    steps = ", ".join(f"{count} {status}" for status, count in sorted(summary.steps.items()))
    board.line(f"plans: {summary.plans}; runs: {ends}; steps: {steps}")
    board.line(f"bodies: {summary.bodies}; people asked {summary.asked[0]} times, {summary.asked[1]} carried out")
    for text, count in summary.errors.most_common(10):
        board.line(f"the workers logged {count} times: {text}")
    if summary.stood_s > _STOOD_S:
        board.line(f"this machine stood still for {summary.stood_s:.1f} s: what only came late proves nothing")
    verdict = f"{len(summary.failing)} runs of {len({f.case.plan.number for f in summary.failing})} plans are wrong"
    board.line(f"{'all as it must be' if summary.sound else verdict}; again: {summary.options.command()}")


def _head(summary: Summary, failing: Failing) -> Iterator[str]:
    case = failing.case
    yield ""
    yield f"WRONG: plan {case.plan.number} of seed {case.plan.seed}, run {case.run_id}, {case.status}"
    for text in failing.findings:
        yield f"  {text}"
    yield f"  again: {summary.options.command(case.plan.number)}"


def _lines(summary: Summary, failing: Failing) -> Iterator[str]:
    case = failing.case
    yield from _head(summary, failing)
    if case.forked_from is not None:
        yield f"it runs {case.forked_from.run_id} again"
    yield "--- the plan"
    yield case.plan.workflow.to_yaml().rstrip()
    yield f"--- its input: {case.plan.input('…')}"
    yield "--- what people are to do"
    yield from (f"{act}" for act in case.plan.acts)
    yield "--- what happened"
    happened: list[tuple[float, str]] = [(row.created_at.timestamp(), _row(row)) for row in failing.history]
    happened += [(said.asked_at, _said(said)) for said in case.said]
    for bodies in case.bodies.values():
        for body in bodies:
            happened += _body(body)
    yield from (f"{_time(at)}  {text}" for at, text in sorted(happened))
    yield "--- how it stands"
    for fact in case.steps.values():
        yield f"{fact.key}: {fact.status}, attempt {fact.attempt}, result {fact.result}"
    if failing.stuck is not None:
        yield f"--- explain: {failing.stuck['summary']}"
        yield from (f"{reason['kind']}: {reason['text']}" for reason in failing.stuck["reasons"])


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3]


def _row(row: Any) -> str:
    what = f"{row.step_key or 'run'}: {row.from_state} → {row.to_state}"
    return f"#{row.seq:<3} {what}  by {row.transitioned_by}, attempt {row.attempt}: {row.transition_reason}"


def _said(said: Said) -> str:
    answer = f"refused: {said.refusal}" if said.refusal else "done"
    took_ms = (said.answered_at - said.asked_at) * 1000
    mode = f" ({said.act.mode})" if said.act.verb == "pause" else ""
    return f"     {said.by} asks: {said.act.verb} {said.act.step or 'the run'}{mode} … {answer} after {took_ms:.0f} ms"


def _body(body: Body) -> Iterator[tuple[float, str]]:
    yield body.began_at, f"     {body.key}: body {body.number} of attempt {body.attempt} begins: {body.fate}"
    if body.ended_at is not None:
        yield body.ended_at, f"     {body.key}: body {body.number} ends: {body.how}"
