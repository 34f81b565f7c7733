"""The oracle lets pass what is right, and finds each kind of what must not be: planted in runs that were sound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.random_plans.oracle import judge, reused
from tests.random_plans.plans import Condition, Gate
from tests.random_plans.scenes import asked, body, run, step

if TYPE_CHECKING:
    from tests.random_plans.facts import Case

RETURNED = {"body": "a0", "value": 1}
APPROVED = {"decision": "approved", "approved": True}
FAILING = ("raise 0",)
ITEMS = (("return 0",), ("return 0",))
CLEAN_UP = step("b", "a", trigger="any_failed")
BY_HAND = {"body": "by hand", "value": 5}


def failing(key: str = "a", **options: str) -> Case:
    """A run in which one step fails, and one cleans up behind it."""
    ends = {key: "failed", **options}
    steps = (step(key, fates=FAILING, on_failure="continue"), CLEAN_UP)
    return run(*steps, ends=ends, bodies=(body(key, how="Wrong"), body("b", given={key: None})))


SOUND: dict[str, Case] = {
    "a step and the next one": run(step("a"), step("b", "a"), bodies=(body("a"), body("b", given={"a": RETURNED}))),
    "a clean-up behind a failure": failing(),
    "what needs a failed step is skipped": run(
        step("a", fates=FAILING, on_failure="continue"),
        step("b", "a"),
        ends={"a": "failed", "b": "skipped"},
        bodies=(body("a", how="Wrong"),),
    ),
    "a failure ends the run": run(
        step("a", fates=FAILING),
        step("b", "a"),
        status="failed",
        ends={"a": "failed", "b": "cancelled"},
        bodies=(body("a", how="Wrong"),),
    ),
    "tried again as often as the policy says": run(
        step("a", max_attempts=3), bodies=(body("a", 0, "Wrong"), body("a", 1, "Wrong"), body("a", 2))
    ),
    "lost with its process, and tried again": run(step("a"), bodies=(body("a", 0, "kill"), body("a", 1))),
    "Celery's own retries count for nothing": run(
        step("a"), bodies=(body("a", 0, "Retry"), body("a", 1, "Retry"), body("a", 2))
    ),
    "a condition that is false": run(
        step("a"), step("b", "a", when=Condition("at_least", "a", 2)), ends={"b": "skipped"}, bodies=(body("a"),)
    ),
    "a gate that somebody approves": run(
        step("a", fates=None, gate=Gate()), said=(asked("approve", "a"),), results={"a": APPROVED}
    ),
    "a gate that somebody rejects": run(
        step("a", fates=None, gate=Gate()), status="cancelled", ends={"a": "cancelled"}, said=(asked("reject", "a"),)
    ),
    "a rejection that is no end": run(
        step("a", fates=None, gate=Gate(on_reject="continue")),
        said=(asked("reject", "a"),),
        results={"a": {"decision": "rejected"}},
    ),
    "a list": run(
        step("a", fates=None, items=ITEMS),
        bodies=(body("a.0"), body("a.1")),
        results={"a": [{"body": "a.00", "value": 1}, {"body": "a.10", "value": 1}]},
    ),
    "a body that a pause interrupts runs again": run(
        step("a"),
        bodies=(body("a", 0, "StepInterrupted", at=10), body("a", 1, at=20)),
        said=(asked("pause", at=10), asked("resume", at=15)),
        stops=((10.05, None, "paused", "ann"),),
    ),
    "a failed step that somebody tries again": run(
        step("a", fates=FAILING, on_failure="pause"),
        bodies=(body("a", 0, "Wrong", at=10), body("a", 1, at=20)),
        said=(asked("retry", "a"), asked("resume", at=16)),
        stops=((10.2, None, "paused", "engine"),),
    ),
    "a failed step that somebody settles": run(
        step("a", fates=FAILING, on_failure="pause"),
        bodies=(body("a", 0, "Wrong", at=10),),
        said=(asked("settle", "a", result=BY_HAND), asked("resume", at=16)),
        stops=((10.2, None, "paused", "engine"),),
        results={"a": BY_HAND},
    ),
    "a limit": run(
        step("a", fates=("outlast 5",), timeout_s=1.0, max_attempts=2),
        bodies=(body("a", 0, "SoftTimeLimitExceeded", fate="outlast"), body("a", 1)),
    ),
    "an item that somebody tries again as the run ends": run(
        step("a", fates=None, items=(FAILING,), on_failure="continue"),
        step("b", "a", fates=FAILING),
        status="failed",
        ends={"a.0": "cancelled", "b": "failed"},
        bodies=(body("a.0", how="Wrong"), body("b", how="Wrong", given={"a": [None]})),
        said=(asked("retry", "a.0"),),
        results={"a": [None]},
    ),
    "somebody cancels": run(
        step("a"),
        step("b", "a"),
        status="cancelled",
        ends={"a": "cancelled", "b": "cancelled"},
        said=(asked("cancel"),),
    ),
    "a rerun takes over what had completed": run(
        step("a"),
        step("b", "a"),
        bodies=(body("b", given={"a": RETURNED}),),
        results={"a": RETURNED},
        forked_from=run(
            step("a"),
            step("b", "a", fates=FAILING),
            status="failed",
            ends={"b": "failed"},
            bodies=(body("a"), body("b", how="Wrong")),
        ),
    ),
}

WRONG: dict[str, tuple[Case, str]] = {
    "a clean-up that never ran": (
        replace(failing(b="cancelled"), bodies={"a": [body("a", how="Wrong")]}),
        "b: is cancelled, must be",
    ),
    "a clean-up that ran with nothing to clean up": (
        run(step("a"), CLEAN_UP, bodies=(body("a"), body("b", given={"a": RETURNED}))),
        "b: its body ran and must not",
    ),
    "a body that ran although its condition is false": (
        run(
            step("a"),
            step("b", "a", when=Condition("at_least", "a", 2)),
            bodies=(body("a"), body("b", given={"a": RETURNED})),
        ),
        "b: its body ran and must not",
    ),
    "a body that ran again behind its result": (
        run(step("a"), bodies=(body("a", 0), body("a", 1))),
        "a: body 1 ran although the step was completed",
    ),
    "a body that ran again behind its last failure": (
        run(step("a", max_attempts=1), bodies=(body("a", 0, "Wrong"), body("a", 1))),
        "a: body 1 ran although the step was failed",
    ),
    "a body that ran too often for what was lost": (
        run(step("a", max_lost=1), bodies=(body("a", 0, "kill"), body("a", 1))),
        "a: body 1 ran although the step was failed",
    ),
    "an attempt that counts as lost, and was not": (
        run(step("a"), bodies=(body("a", 0, "Retry"), body("a", 1)), losses={"a": 1}),
        "a: 1 of its attempts count as lost",
    ),
    "a failure of which nothing is known": (
        run(step("a", max_attempts=1), bodies=(body("a", 0, "Wrong"),), results={"a": RETURNED}),
        "a: is completed, must be failed",
    ),
    "a result of no body": (
        run(step("a"), bodies=(body("a"),), results={"a": {"body": "x"}}),
        "which is of none of its bodies",
    ),
    "a step that completed without a body": (run(step("a"), results={"a": RETURNED}), "a: is completed, must be"),
    "an interruption by nobody": (
        run(step("a"), bodies=(body("a", 0, "StepInterrupted"), body("a", 1))),
        "ended with StepInterrupted, for no reason",
    ),
    "a body that vanished": (
        run(step("a"), bodies=(replace(body("a", 0), how=None, ended_at=None), body("a", 1))),
        "ended without a word, for no reason",
    ),
    "a limit that is lifted": (
        run(step("a", fates=("outlast 5",), timeout_s=0.1), bodies=(body("a", fate="outlast"),)),
        "a: is completed, must be failed",
    ),
    "two bodies at once": (
        run(step("a", max_attempts=2), bodies=(body("a", 0, "Wrong", at=10), body("a", 1, at=10.05))),
        "a: body 1 began while body 0 ran",
    ),
    "two bodies for one attempt": (
        run(step("a", max_attempts=2), bodies=(body("a", 0, "Wrong"), replace(body("a", 1), attempt=1))),
        "ran for the same attempt 1",
    ),
    "what a body was given": (
        run(step("a"), step("b", "a"), bodies=(body("a"), body("b", given={"a": None}))),
        "b: body 0 was given None for a",
    ),
    "a checkpoint that is gone": (
        run(
            step("a", max_attempts=2, careful=True),
            bodies=(body("a", 0, "Wrong", looked=True, saved=True), body("a", 1, looked=True, found=None)),
        ),
        "found the checkpoint None, stored was 0",
    ),
    "a list that is not that of its items": (
        run(step("a", fates=None, items=ITEMS), bodies=(body("a.0"), body("a.1")), results={"a": [None, None]}),
        "a: its list is [None, None]",
    ),
    "an item that the plan does not have": (
        run(
            step("a", fates=None, items=ITEMS),
            bodies=(body("a.0"), body("a.1"), body("a.2")),
            results={"a": [{"body": "a.00", "value": 1}, {"body": "a.10", "value": 1}]},
        ),
        "a.2: the plan has no such step",
    ),
    "a gate that nobody decided": (
        run(step("a", fates=None, gate=Gate()), results={"a": APPROVED}),
        "nobody has decided",
    ),
    "a run that completed over a failure": (
        run(step("a", fates=FAILING), ends={"a": "failed"}, bodies=(body("a", how="Wrong"),)),
        "the run completed, and a failed",
    ),
    "a run that failed for nothing": (run(step("a"), status="failed", bodies=(body("a"),)), "no step that fails it"),
    "a run that nobody cancelled": (
        run(step("a"), status="cancelled", bodies=(body("a"),)),
        "the run was cancelled, and nobody asked for it",
    ),
    "a cancel that was not done": (
        run(step("a"), bodies=(body("a"),), said=(asked("cancel"),)),
        "somebody was told that the run is cancelled",
    ),
    "a run that has not ended": (run(step("a"), status="executing", bodies=(body("a"),)), "the run is executing"),
    "a pause by nobody": (
        run(step("a"), bodies=(body("a"),), stops=((20.0, None, "paused", "engine"),)),
        "the run: was paused by engine, who had not asked for it",
    ),
    "a body that began in a pause": (
        run(
            step("a"),
            step("b"),
            bodies=(body("a", at=10), body("b", at=25)),
            said=(asked("pause", at=20), asked("resume", at=30)),
            stops=((20.05, None, "paused", "ann"),),
        ),
        "b: body 0 began 4.9 s after the run was paused",
    ),
    "a body that began behind the end": (
        run(step("a", fates=FAILING), status="failed", ends={"a": "failed"}, bodies=(body("a", how="Wrong", at=110),)),
        "began 10.0 s after the end of the run",
    ),
    "a result that a pause has lost": (
        run(
            step("a"),
            bodies=(body("a", 0, at=10), body("a", 1, at=20)),
            said=(asked("pause", at=10, mode="drain"), asked("resume", at=15)),
            stops=((10.05, None, "paused", "ann"),),
        ),
        "a: body 1 ran although the step was completed",
    ),
    "a retry that was refused while the run lived": (
        run(
            step("a", fates=FAILING, on_failure="continue"),
            ends={"a": "failed"},
            bodies=(body("a", how="Wrong"),),
            said=(asked("retry", "a", refusal="CommandRefused: waiting"),),
        ),
        "ann was not to retry a, although the run lived",
    ),
    "an answer that is no answer": (
        run(step("a"), bodies=(body("a"),), said=(asked("pause", refusal="KeyError: 'x'", wrong=True),)),
        "ann asked to pause the run: KeyError",
    ),
    "a rerun that runs again what had completed": (
        run(
            step("a"),
            bodies=(body("a"),),
            forked_from=run(step("a"), status="cancelled", bodies=(body("a"),), said=(asked("cancel"),)),
        ),
        "a: had completed in the run before, and a body ran",
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_right_passes(name: str) -> None:
    assert judge(SOUND[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_each_kind_of_what_must_not_be_is_found(name: str) -> None:
    case, words = WRONG[name]
    assert [text for text in judge(case) if words in text], judge(case)


def test_what_is_behind_a_step_that_ended_badly_is_not_taken_over() -> None:
    """How it began depends on what is run again now."""
    old = failing()
    assert old.steps["b"].status == "completed"
    assert reused(old) == {}
