"""The models: what one step and one plan may say."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from pydantic import ValidationError

from interlock.core.errors import InvalidPlan
from interlock.core.json_values import MAX_DEPTH
from interlock.core.model.retry import RetryPolicy
from interlock.core.plan import ApprovalSpec, MapSpec, OnFailure, PlanSpec, StepSpec, examine_plan
from interlock.core.plan.expressions import ALL

FULL = {
    "name": "orders",
    "task_description": "Handle an order",
    "deadline_s": 3600,
    "max_parallel": 5,
    "on_external_revoke": "pause",
    "steps": [
        {"key": "load", "task": "shop.load", "args": [1, [2, {"x": None}]], "timeout": 30},
        {
            "key": "each",
            "task": "shop.one",
            "after": "load",
            "kwargs": {"line": {"$expr": "item"}, "n": {"$expr": "index"}},
            "map": {"over": "results.load.lines", "max_parallel": 3},
            "retry": {"max_attempts": 4, "non_retryable": ["ValueError"]},
            "queue": "slow",
            "priority": 7,
            "options": {"expires": 60, "routing_key": "a.b", "headers": {"tenant": "t1"}},
        },
        {
            "key": "ok",
            "after": ["each", "load"],
            "approval": {"approvers": ["ann", "bob"], "deadline_s": 60, "default": "approve"},
        },
        {
            "key": "tidy",
            "task": "shop.tidy",
            "after": ["ok"],
            "when": "length(results.each) > `0`",
            "trigger": "all_settled",
            "on_failure": "continue",
            "on_external_revoke": "redispatch",
        },
    ],
}


def faults_in(step: dict[str, Any]) -> list[str]:
    """What is said about one step, which has a key and a task unless it says otherwise."""
    _, faults = examine_plan([{"key": "a", "task": "t", **step}])
    return [str(fault) for fault in faults]


def test_a_full_plan_survives_json_and_is_stored_without_its_defaults() -> None:
    plan = PlanSpec.parse(FULL)
    document = json.loads(json.dumps(plan.document()))
    assert PlanSpec.parse(document) == plan
    assert document["steps"][0] == {
        "key": "load",
        "task": "shop.load",
        "args": [1, [2, {"x": None}]],
        "timeout_s": 30.0,
    }
    assert document["steps"][2]["approval"] == {
        "approvers": ["ann", "bob"],
        "deadline_s": 60.0,
        "default": "approve",
    }


def test_a_mapping_a_list_and_a_plan_are_read_alike() -> None:
    steps = [{"key": "a", "task": "t"}]
    plan = PlanSpec.parse({"steps": steps})
    assert PlanSpec.parse(steps) == PlanSpec.parse(tuple(steps)) == plan
    assert PlanSpec.parse(plan) is plan


def test_a_plan_cannot_be_changed() -> None:
    plan = PlanSpec.parse(FULL)
    with pytest.raises(ValidationError):
        plan.name = "other"


def test_short_forms_mean_the_long_ones() -> None:
    short = StepSpec(key="a", task="t", after="b", map="input.x", approval=True, timeout=5)
    assert short.after == ("b",)
    assert short.map == MapSpec(over="input.x")
    assert short.approval == ApprovalSpec()
    assert short.timeout_s == 5
    assert short == StepSpec(
        key="a", task="t", after=("b",), map={"over": "input.x"}, approval=ApprovalSpec(), timeout_s=5
    )


def test_tuples_and_lists_of_arguments_give_equal_steps() -> None:
    assert StepSpec(key="a", task="t", args=(1, (2,))) == StepSpec(key="a", task="t", args=[1, [2]])


def test_options_compare_equal_to_plain_strings() -> None:
    assert StepSpec(key="a", task="t", on_failure="pause").on_failure == OnFailure.PAUSE == "pause"


def test_a_step_keeps_its_own_copy_of_its_arguments() -> None:
    args = [[1]]
    step = StepSpec(key="a", task="t", args=args)
    args[0].append(2)
    assert step.args == [[1]]


def test_a_steps_references_come_from_all_its_expressions() -> None:
    step = StepSpec(
        key="a",
        task="t",
        args=[{"$expr": "results.b.x"}, {"$literal": {"$expr": "results.not"}}, "results.not"],
        kwargs={"x": [{"$expr": "states.c"}]},
        when="results.d",
        map="results.e.list",
    )
    assert step.references() == {"b", "c", "d", "e"}
    assert StepSpec(key="a", task="t", when="values(results)").references() == {ALL}


@pytest.mark.parametrize("key", ["", "a b", "a/b", "ä", "a\n", "a" * 201, 5, None])
def test_a_key_outside_the_alphabet_is_refused(key: object) -> None:
    assert faults_in({"key": key})[0].startswith("steps[0].key: ")


@pytest.mark.parametrize("key", ["a", "A.b-c_9", "0", "a" * 200])
def test_a_key_inside_the_alphabet_is_accepted(key: object) -> None:
    assert faults_in({"key": key}) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "set is not JSON: use a list"),
        (b"x", "bytes is not JSON: encode it, such as by base64"),
        (dt.date(2024, 1, 1), "date is not JSON: write it as a string"),
        (object(), "object is not JSON"),
        (float("nan"), "nan is no JSON number"),
        (float("-inf"), "-inf is no JSON number"),
        ({1: "x"}, "a key is int, not a string: quote it"),
        ("a\0b", "text with a NUL character cannot be stored"),
        ("\ud800", "text with a lone surrogate cannot be stored"),
        (2**4097, "an integer of over 4096 bits: pass a string"),
    ],
)
def test_an_argument_that_is_not_json_is_refused_with_its_place(value: object, said: str) -> None:
    assert faults_in({"args": [0, value]}) == [f"steps[0].args[1]: {said}"]
    assert faults_in({"kwargs": {"x": [value]}}) == [f"steps[0].kwargs.x[0]: {said}"]


def test_arguments_nested_too_deeply_or_into_themselves_are_refused() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    ring: list[object] = []
    ring += [ring, ring]
    assert faults_in({"args": deep})[0].endswith(f"nested more than {MAX_DEPTH} deep")
    assert faults_in({"args": ring})[0].endswith(f"nested more than {MAX_DEPTH} deep")


def test_arguments_that_expand_to_billions_by_sharing_are_refused() -> None:
    shared: list[object] = ["x"]
    for _ in range(30):
        shared = [shared, shared]
    (fault,) = faults_in({"args": shared})
    assert fault.startswith("steps[0].args[0]")
    assert fault.endswith("over 1,000,000 values")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"task": None}, "steps[0].task: is required (only a step with `approval` can do without)"),
        ({"task": None, "approval": True, "args": [1]}, "steps[0].args: has no use in a step without a task"),
        ({"task": None, "approval": True, "map": "input"}, "steps[0].map: has no use in a step without a task"),
        ({"args": [{"$expr": "item.x"}]}, "steps[0].args[0]: item: only the arguments of a mapped step"),
        ({"map": "input", "when": "item"}, "steps[0].when: item: only the arguments of a mapped step"),
        ({"map": "index.x"}, "steps[0].map.over: index: only the arguments of a mapped step"),
        ({"key": "k" * 191, "map": "input"}, "steps[0].key: of a mapped step: at most 190 characters"),
        ({"when": "results."}, "steps[0].when: syntax error at column 9"),
        ({"map": "foo("}, "steps[0].map.over: syntax error"),
        ({"args": [{"$expr": "a-b"}]}, "steps[0].args[0]: syntax error at column 2, near '-'"),
        ({"args": [{"$expr": "input", "x": 1}]}, 'steps[0].args[0]: "$expr" must be the only key of its object'),
        ({"kwargs": {"x": {"$expr": 1}}}, 'steps[0].kwargs.x: "$expr" must be a JMESPath string, not int'),
        ({"priority": 256}, "steps[0].priority: must be less than or equal to 255, not 256"),
        ({"priority": "high"}, 'steps[0].priority: must be an integer, not "high"'),
        ({"timeout_s": 0}, "steps[0].timeout_s: must be greater than 0, not 0"),
        ({"timeout": "3"}, 'steps[0].timeout: must be a number, not "3"'),
        ({"timeout": 1, "timeout_s": 2}, "steps[0].timeout: unknown field"),
        ({"on_failure": "ignore"}, "steps[0].on_failure: must be 'fail', 'continue' or 'pause', not \"ignore\""),
        ({"trigger": "one_success"}, "steps[0].trigger: must be 'all_completed'"),
        ({"retry": {"max_retries": 3}}, "steps[0].retry.max_retries: unknown field"),
        ({"retry": 3}, "steps[0].retry: must be an object, not 3"),
        ({"approval": {"aprovers": []}}, 'steps[0].approval.aprovers: unknown field (did you mean "approvers"?)'),
        ({"map": {"over": "input", "max_paralel": 3}}, 'unknown field (did you mean "max_parallel"?)'),
        ({"args": {"a": 1}}, "steps[0].args: must be a list, not an object"),
        ({"kwargs": [1]}, "steps[0].kwargs: must be an object, not a list"),
        ({"depends_on": []}, "steps[0].depends_on: unknown field"),
    ],
)
def test_each_mistake_inside_a_step_is_named_with_its_field(step: dict[str, Any], said: str) -> None:
    assert any(said in fault for fault in faults_in(step)), faults_in(step)


def test_a_gate_needs_no_task() -> None:
    assert faults_in({"task": None, "approval": {"approvers": "ann", "on_reject": "continue"}}) == []


def test_item_and_index_are_seen_in_the_arguments_of_a_mapped_step() -> None:
    assert faults_in({"map": "input.l", "args": [{"$expr": "item"}], "kwargs": {"n": {"$expr": "index"}}}) == []


def test_a_retry_policy_may_be_an_object_of_its_class() -> None:
    step = StepSpec(key="a", task="t", retry=RetryPolicy(max_attempts=3))
    assert step == StepSpec(key="a", task="t", retry={"max_attempts": 3})


def test_parse_reports_every_field_at_once() -> None:
    with pytest.raises(InvalidPlan) as caught:
        PlanSpec.parse({"naem": "x", "steps": [{"key": "a b", "task": "t"}, {"task": 5}, 7]})
    assert sorted(caught.value.faults) == [
        'naem: unknown field (did you mean "name"?)',
        'steps[0].key: must be 1 to 200 of A-Z a-z 0-9 _ . -, not "a b"',
        "steps[1].key: is required",
        "steps[1].task: must be a string, not 5",
        "steps[2]: must be an object, not 7",
    ]
