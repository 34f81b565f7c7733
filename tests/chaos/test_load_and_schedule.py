"""The same seed gives the same load and the same faults; the load is what it says."""

from __future__ import annotations

from collections import Counter

from tests.chaos.plans import SESSIONS, STEPS, make_plans
from tests.chaos.schedule import SERVERS, Kind, make_schedule

SECONDS = 300.0


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (make_schedule(seed, duration_s=SECONDS, every_s=3, workers=3) for seed in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_every_kind_of_fault_comes_once_before_any_comes_twice() -> None:
    faults = make_schedule("a", duration_s=SECONDS, every_s=3, workers=3)
    dealt = sorted(faults, key=lambda fault: fault.at_s)
    assert set(Kind) == {fault.kind for fault in dealt}
    assert {fault.target for fault in dealt} == {"worker-1", "worker-2", "worker-3", *SERVERS.values()}


def test_what_is_down_is_not_broken_again_before_it_is_back() -> None:
    back_at: dict[str, float] = {}
    for fault in make_schedule("a", duration_s=SECONDS, every_s=0.5, workers=2):
        assert fault.at_s > back_at.get(fault.target, 0.0)
        back_at[fault.target] = fault.at_s + fault.down_s


def test_the_same_seed_gives_the_same_workflows_whatever_their_number() -> None:
    few, many = make_plans("a", 10), make_plans("a", 20)
    assert [plan.workflow.to_dict() for plan in few] == [plan.workflow.to_dict() for plan in many[:10]]
    assert [plan.treatment for plan in few] == [plan.treatment for plan in many[:10]]
    assert few[0].workflow.to_dict() != make_plans("b", 1)[0].workflow.to_dict()


def test_the_load_has_every_shape_session_door_and_treatment_and_ten_steps_each() -> None:
    plans = make_plans("a", 300)
    assert set(Counter(plan.shape for plan in plans).values()) == {60}
    assert {plan.session_id for plan in plans} == set(SESSIONS)
    assert {plan.remote for plan in plans} == {True, False}
    assert {plan.treatment and plan.treatment.verb for plan in plans} == {None, "pause", "cancel"}
    for plan in plans:
        rows = {step["key"] for step in plan.workflow.to_dict()["steps"]} | set(plan.expected)
        assert len(rows) == STEPS


def test_the_expected_sums_are_those_of_the_arguments() -> None:
    """A chain by hand: each step adds its own number to the one before."""
    plan = make_plans("a", 1)[0]
    total = 0
    for step in plan.workflow.to_dict()["steps"]:
        total += step["args"][0][-1]
        assert plan.expected[step["key"]] == total
