"""Which steps may be run through, as their plan says it."""

from __future__ import annotations

from interlock.core.plan import PlanSpec
from interlock.core.plan.run_through import kind_of, kinds_ahead
from tests.core.rows import step

THROUGH = [
    *(step("a"), step("b", "a", queue="q"), step("c", "a", timeout_s=5), step("d", "a b")),
    *(step("e", "d", run_through=False), step("m", "d", map="`[1]`")),
]


def _ahead(plan: PlanSpec) -> dict[str, list[str]]:
    return kinds_ahead(plan, {each.key: each.model_dump(exclude_defaults=True) for each in plan.steps})


def test_a_step_names_the_kinds_behind_it_that_may_be_run_through_and_no_others() -> None:
    assert _ahead(PlanSpec.parse({"steps": THROUGH, "run_through": True})) == {
        "a": sorted([kind_of("tasks.b", "q"), kind_of("tasks.d", None)]),
        "b": [kind_of("tasks.d", None)],
    }


def test_nothing_is_run_through_unless_the_plan_or_the_step_asks_for_it() -> None:
    assert _ahead(PlanSpec.parse(THROUGH)) == {}
    assert _ahead(PlanSpec.parse([step("a"), step("b", "a", run_through=True)])) == {"a": [kind_of("tasks.b", None)]}
