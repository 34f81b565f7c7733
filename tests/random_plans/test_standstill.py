"""What could go on in a run that stands is found; what waits for good reason is not."""

from __future__ import annotations

from dataclasses import replace

from tests.random_plans.plans import Gate, Plan
from tests.random_plans.scenes import step
from tests.random_plans.standstill import movable

FAILING = step("a", fates=("raise 0",), on_failure="continue")
GATE = step("g", fates=None, gate=Gate())
UNDO = [step(key, "a", "g", trigger="any_failed") for key in ("undo1", "undo2")]
ONE_AT_A_TIME = Plan("seed", 0, (FAILING, GATE, *UNDO), max_parallel=1)
STANDING = {"a": "failed", "g": "waiting_approval", "undo1": "completed", "undo2": "pending"}
ITEMS = Plan("seed", 0, (step("m", fates=None, items=(("return 0",),) * 3, items_at_once=1),))


def test_a_step_whose_trigger_holds_takes_the_place_that_is_free() -> None:
    """Also while another step that it waits for is open."""
    (found,) = movable(ONE_AT_A_TIME, STANDING)
    assert found == "undo2 waits, and may begin: any_failed of {'a': 'failed', 'g': 'waiting_approval'}"


def test_a_step_without_a_place_waits() -> None:
    assert movable(ONE_AT_A_TIME, {**STANDING, "undo1": "paused"}) == []
    assert movable(replace(ONE_AT_A_TIME, max_parallel=2), {**STANDING, "undo1": "paused"})


def test_a_step_that_waits_for_a_person_or_for_another_step_may_wait() -> None:
    assert (
        movable(ONE_AT_A_TIME, {"a": "paused", "g": "waiting_approval", "undo1": "pending", "undo2": "pending"}) == []
    )


def test_a_step_that_can_never_begin_does_not_wait() -> None:
    plan = Plan("seed", 0, (FAILING, GATE, step("b", "a")))
    (found,) = movable(plan, {"a": "failed", "g": "waiting_approval", "b": "pending"})
    assert found == "b waits, and can never begin: all_completed of {'a': 'failed'}"


def test_items_wait_only_for_a_place_and_their_list_for_none_of_them() -> None:
    states = {"m": "running", "m.0": "completed", "m.1": "pending", "m.2": "pending"}
    assert movable(ITEMS, states) == ["m: 2 of its items wait, and may begin"]
    assert movable(ITEMS, {**states, "m.0": "paused"}) == []
    (found,) = movable(ITEMS, {**states, "m.1": "completed", "m.2": "failed"})
    assert found.startswith("m is running, and its items are settled")
