"""The models: what one step and one plan may say."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from interlock.core.model.retry import RetryPolicy
from interlock.core.plan import ApprovalSpec, MapSpec, OnFailure, PlanSpec, StepSpec
from interlock.core.plan.expressions import ALL
from tests.core.plan_faults import faults_in

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


def test_a_gate_needs_no_task() -> None:
    assert faults_in({"task": None, "approval": {"approvers": "ann", "on_reject": "continue"}}) == []


def test_item_and_index_are_seen_in_the_arguments_of_a_mapped_step() -> None:
    assert faults_in({"map": "input.l", "args": [{"$expr": "item"}], "kwargs": {"n": {"$expr": "index"}}}) == []


def test_a_retry_policy_may_be_an_object_of_its_class() -> None:
    step = StepSpec(key="a", task="t", retry=RetryPolicy(max_attempts=3))
    assert step == StepSpec(key="a", task="t", retry={"max_attempts": 3})
