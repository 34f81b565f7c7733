"""What concerns several steps, the limits, and that nothing stays unsaid."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import InvalidPlan
from interlock.core.plan import PlanLimits, PlanSpec, examine_plan, validate_plan
from tests.growth import grows_linearly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interlock.core.json_values import Json


def step(key: str, after: str | Sequence[str] = (), **fields: Json) -> dict[str, Any]:
    return {"key": key, "task": "t", "after": after, **fields}


def faults_of(steps: object, **options: Json) -> list[str]:
    with pytest.raises(InvalidPlan) as caught:
        validate_plan(steps, **options)
    return list(caught.value.faults)


def test_a_plan_that_can_be_run_is_returned() -> None:
    plan = validate_plan({"name": "n", "steps": [step("a"), step("b", "a")]})
    assert isinstance(plan, PlanSpec)
    assert [item.key for item in plan.steps] == ["a", "b"]
    assert validate_plan(plan) == plan
    assert validate_plan(plan.document()) == plan == PlanSpec.parse(plan.document())


def test_a_cycle_is_refused_and_printed() -> None:
    assert faults_of([step("a", "c"), step("b", "a"), step("c", "b"), step("d", "c")]) == [
        "steps[0].after: cycle: a → b → c → a (an arrow leads to the step that waits)"
    ]


def test_a_step_that_waits_for_itself_is_a_cycle() -> None:
    assert faults_of([step("a", "a")]) == ["steps[0].after: cycle: a → a (an arrow leads to the step that waits)"]


def test_two_knots_are_two_faults() -> None:
    faults = faults_of([step("a", "b"), step("b", "a"), step("x", ["y", "a"]), step("y", "x")])
    assert [fault.partition(" (")[0] for fault in faults] == [
        "steps[0].after: cycle: a → b → a",
        "steps[2].after: cycle: x → y → x",
    ]


def test_a_long_cycle_is_printed_with_its_middle_left_out() -> None:
    (fault,) = faults_of([step(f"s{n}", f"s{(n - 1) % 500}") for n in range(500)])
    assert "s0 → s1 → " in fault
    assert "(481 more)" in fault
    assert len(fault) < 500


def test_an_unknown_dependency_is_refused_with_what_was_meant() -> None:
    assert faults_of([step("fetch"), step("parse", "fecth")]) == [
        'steps[1].after: unknown step "fecth" (did you mean "fetch"?)'
    ]


def test_a_repeated_dependency_is_refused() -> None:
    assert faults_of([step("a"), step("b", ["a", "a"])]) == ['steps[1].after: "a" is there twice']


def test_a_repeated_key_is_refused_with_both_places() -> None:
    assert faults_of([step("a"), step("b"), step("a")]) == ['steps[2].key: "a" is already the key of steps[0]']


def test_an_unknown_task_is_refused_with_what_was_meant() -> None:
    faults = faults_of([step("a", task="shop.chrage")], known_tasks={"shop.charge", "shop.load"})
    assert faults == ['steps[0].task: unknown task "shop.chrage" (did you mean "shop.charge"?)']


def test_tasks_are_not_checked_where_they_are_not_known() -> None:
    assert validate_plan([step("a", task="anything")]).steps[0].task == "anything"


def test_a_gate_has_no_task_to_know() -> None:
    assert validate_plan([{"key": "gate", "approval": True}], known_tasks=())


def test_a_result_may_only_be_read_from_a_step_that_has_run_before() -> None:
    steps = [
        step("a"),
        step("b", "a"),
        step("c", "b", args=[{"$expr": "results.a.x"}], when="states.b == 'completed'"),
        step("d", args=[{"$expr": "results.c"}]),
        step("e", "d", kwargs={"x": [{"$expr": "results.e"}]}),
        step("f", "a", map="results.nobody"),
    ]
    assert faults_of(steps) == [
        'steps[3].args[0]: reads step "c", which need not have run before: add "c" to `after`',
        "steps[4].kwargs.x[0]: reads the step's own result",
        'steps[5].map.over: unknown step "nobody"',
    ]


def test_results_may_be_read_whole() -> None:
    assert validate_plan([step("a"), step("b", "a", args=[{"$expr": "results"}])])


def test_a_key_that_an_item_of_a_mapped_step_will_have_is_refused() -> None:
    steps = [step("m", map="input.list"), step("m.0"), step("m.x"), step("m.07"), step("n"), step("n.1")]
    assert faults_of(steps) == [
        'steps[1].key: "m.0" is the key of an item of the mapped "m"',
        'steps[3].key: "m.07" is the key of an item of the mapped "m"',
    ]


def test_any_failed_needs_something_that_can_fail() -> None:
    assert faults_of([step("a", trigger="any_failed")]) == [
        "steps[0].trigger: any_failed can never hold without a step in `after`"
    ]


def test_an_empty_plan_is_refused() -> None:
    assert faults_of([]) == ["steps: is empty"]


@pytest.mark.parametrize("obj", [None, 5, "steps", {}, {"steps": {}}, {"steps": None}, [[]], [None], [5]])
def test_what_is_no_plan_at_all_is_refused_in_words(obj: object) -> None:
    (fault,) = faults_of(obj)
    assert fault.split(": ")[0] in ("plan", "steps", "steps[0]")


def test_more_steps_than_allowed_are_refused_without_looking_at_them() -> None:
    assert faults_of([None] * 10_001) == ["steps: 10,001 steps, over the limit of 10,000"]
    assert faults_of([step("a"), step("b")], limits=PlanLimits(max_steps=1)) == ["steps: 2 steps, over the limit of 1"]
    assert validate_plan([step(f"s{n}") for n in range(10_000)])


def test_arguments_over_the_limit_are_refused_and_those_at_it_are_not() -> None:
    empty = len('[[""],{}]')
    assert validate_plan([step("a", args=["x" * (256 * 1024 - empty)])])
    (fault,) = faults_of([step("a", args=["x" * (256 * 1024 - empty + 1)])])
    assert fault.startswith("steps[0].args: args and kwargs are 262,145 bytes of JSON, over the limit of 262,144")


def test_the_size_of_arguments_is_counted_in_bytes() -> None:
    limits = PlanLimits(max_args_bytes=20)
    assert validate_plan([step("a", args=["ä" * 5])], limits=limits)
    assert faults_of([step("a", args=["ä" * 6])], limits=limits)


def test_every_fault_is_listed_at_once_in_the_order_of_the_plan() -> None:
    """One broken field hides nothing: not the rest of its step, not the steps that refer to it."""
    faults = faults_of(
        {
            "nme": "x",
            "deadline_s": -1,
            "steps": [
                step("a", "c"),
                step("b", "a", timeout="soon", when="results.zz"),
                step("c", ["b", "missing"], args=[{1}, {"$expr": "foo("}], priority=True),
                {"key": "d", "tsk": "t", "after": ["gone"]},
                step("c", task="unheard.of"),
                7,
            ],
        },
        known_tasks=["t"],
    )
    assert [fault.split(": ")[0] for fault in faults] == [
        "deadline_s",
        "nme",
        "steps[0].after",  # the cycle a → b → c → a, though b and c are broken
        "steps[1].timeout",
        "steps[1].when",
        "steps[2].args[0]",
        "steps[2].args[1]",
        "steps[2].priority",
        "steps[2].after",
        "steps[3].tsk",
        "steps[3].task",
        "steps[3].after",
        "steps[4].key",
        "steps[4].task",
        "steps[5]",
    ]


def test_the_error_survives_pickling() -> None:
    with pytest.raises(InvalidPlan) as caught:
        validate_plan([step("a", "a"), step("b", "x")])
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (again.faults, str(again)) == (caught.value.faults, str(caught.value))
    assert isinstance(again, ValueError)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*PlanSpec.model_fields["steps"].annotation.__args__[0].model_fields, "timeout", "x"])


@given(st.lists(st.dictionaries(fields, any_json, max_size=5) | any_json, max_size=4))
def test_any_nonsense_is_a_plan_or_refused_and_never_a_crash(steps: list[object]) -> None:
    plan, faults = examine_plan(steps)
    assert (plan is None) == bool(faults)
    if plan is not None:
        assert validate_plan(plan.document()) == plan


def large_plan(size: int = 10_000) -> list[dict[str, Any]]:
    """About two edges and one expression per step."""
    return [
        step(
            f"s{n}",
            sorted({f"s{n - 1}", f"s{n // 2}"}) if n > 1 else [],
            args=[{"$expr": f'results."s{n // 2}".x'}] if n > 1 else [],
        )
        for n in range(1, size + 1)
    ]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sound", "unknown dependencies", "unknown tasks", "one ring"])
def test_examining_a_plan_takes_time_in_proportion_to_its_steps(kind: str) -> None:
    """Up to 10,000 steps with 20,000 edges, sound or with as many faults."""
    tasks = [f"t{n}" for n in range(2000)] if kind == "unknown tasks" else None

    def examined(size: int) -> Callable[[], object]:
        steps = large_plan(size)
        if kind == "unknown dependencies":
            steps = [{**item, "after": [f"no{n}", f"nor{n}"]} for n, item in enumerate(steps)]
        if kind == "one ring":
            steps = [step(f"s{n}", f"s{(n - 1) % size}") for n in range(size)]

        def examine() -> None:
            plan, _ = examine_plan(steps, known_tasks=tasks)
            assert (plan is not None) == (kind == "sound")

        return examine

    assert grows_linearly(examined, 10_000)


@pytest.mark.long
def test_reading_far_ancestors_takes_time_in_proportion_to_the_steps() -> None:
    def validated(size: int) -> Callable[[], object]:
        far = [{"$expr": "results.s0"}]
        row = [step(f"s{n}", f"s{n - 1}" if n else [], args=far if n else []) for n in range(size)]
        return lambda: validate_plan(row)

    assert grows_linearly(validated, 10_000)
