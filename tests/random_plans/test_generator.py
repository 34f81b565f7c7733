"""The same seed gives the same plans; all of them can be run, and together they have everything that they are to have."""

from __future__ import annotations

from functools import cache

import pytest

from tests.random_plans.generator import draw
from tests.random_plans.plans import PEOPLE, Plan, fate_of

MANY = 400


@cache
def drawn() -> list[Plan]:
    return [draw("many", number) for number in range(MANY)]


def words(plan: Plan) -> set[str]:
    """What the bodies of a plan do."""
    lists = [fates for step in plan.steps for fates in ((step.fates or ()), *(step.items or ()))]
    return {fate_of(fates, number)[0] for fates in lists for number in range(len(fates))}


def test_the_same_seed_and_number_give_the_same_plan_and_others_another() -> None:
    assert draw("a", 7) == draw("a", 7)
    assert draw("a", 7).steps != draw("a", 8).steps
    assert draw("a", 7).steps != draw("b", 7).steps


def test_every_plan_is_one_that_can_be_enqueued() -> None:
    for plan in drawn():
        assert len(plan.workflow.plan.steps) == len(plan.steps)


def test_bodies_do_everything_that_they_can() -> None:
    done = set().union(*(words(draw("more", number)) for number in range(1500)))
    assert done == {
        *("return", "stubborn", "outlast", "raise", "hopeless", "retry", "ask", "reject", "ignore", "kill"),
        *("nul", "declined", "mute", "garbled", "unaskable", "exit", "naive"),
    }


@pytest.mark.parametrize("trigger", ["all_completed", "all_settled", "any_failed"])
@pytest.mark.parametrize("on_failure", ["fail", "continue", "pause"])
def test_there_is_every_trigger_and_every_consequence_of_a_failure(trigger: str, on_failure: str) -> None:
    assert any(step.trigger == trigger for plan in drawn() for step in plan.steps)
    assert any(step.on_failure == on_failure for plan in drawn() for step in plan.steps)


def test_there_are_gates_maps_conditions_limits_and_runs_through() -> None:
    steps = [step for plan in drawn() for step in plan.steps]
    assert any(step.gate is not None and not step.works for step in steps)
    assert any(step.gate is not None and step.fates is not None for step in steps)
    assert any(step.items is not None and step.over is None for step in steps)
    assert any(step.over is not None for step in steps)
    assert any(step.items_at_once for step in steps)
    assert {step.when.kind for step in steps if step.when is not None} == {
        *("always", "never", "completed", "at_least", "approved", "broken")
    }
    assert {plan.max_parallel for plan in drawn()} == {None, 1, 2, 3}
    assert {plan.run_through for plan in drawn()} == {True, False}


def test_people_do_everything_that_they_can_in_every_way() -> None:
    acts = [act for plan in drawn() for act in plan.acts]
    assert {act.verb for act in acts} == {
        *("pause", "resume", "cancel", "approve", "reject", "retry", "settle", "rerun")
    }
    assert {act.who for act in acts} == set(range(PEOPLE))
    assert {act.mode for act in acts} == {"interrupt", "drain", "terminate"}


def test_people_act_on_what_is_there() -> None:
    for plan in drawn():
        for act in plan.acts:
            assert {None if key is None else plan.owner(key) is not None for key in (act.step, act.when[0])} <= {
                None,
                True,
            }


def test_a_body_that_kills_its_process_is_alone_in_it() -> None:
    dying = [
        step for plan in drawn() for step in plan.steps if any(fate.startswith("kill") for fate in step.fates or ())
    ]
    assert dying
    assert {step.queue for step in dying} == {"prefork"}


def test_a_body_that_outlasts_its_limit_has_one_and_outlasts_all_that_could_lift_it() -> None:
    slow = [
        step for plan in drawn() for step in plan.steps if any(fate.startswith("outlast") for fate in step.fates or ())
    ]
    assert slow
    for step in slow:
        assert step.timeout_s is not None
        assert step.queue in ("prefork", "threads")
        assert fate_of(step.fates or (), 0)[1] > 2 * step.timeout_s


def test_the_last_fate_is_that_of_all_further_runs() -> None:
    assert [fate_of(("raise 0.1", "return 0.0"), number) for number in range(3)] == [
        ("raise", 0.1),
        ("return", 0.0),
        ("return", 0.0),
    ]
