"""Workflows written in Python, and that YAML says the same."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, shared_task
from hypothesis import given
from hypothesis import strategies as st

from interlock.client.authoring.workflow import Result, Step, Workflow
from interlock.core.errors import InvalidPlan
from interlock.core.model.retry import RetryPolicy
from interlock.core.plan import ApprovalSpec, MapSpec, PlanLimits, StepSpec
from interlock.core.plan.expressions import evaluate

app = Celery("test_workflow", set_as_current=False)


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    return x + y


@shared_task(name="shop.shared")
def shared(x: int) -> int:
    return x


def specs(*steps: Step | StepSpec | dict[str, Any]) -> tuple[StepSpec, ...]:
    return Workflow("w", "for a test", steps).plan.steps


@pytest.mark.parametrize("task", [add, "shop.add", add.s(), add.si()])
def test_a_task_its_name_and_its_signature_mean_the_same(task: object) -> None:
    assert specs(Step("a", task, (1, 2))) == (StepSpec(key="a", task="shop.add", args=[1, 2]),)


def test_a_shared_task_is_a_task() -> None:
    assert specs(Step("a", shared, [1]))[0].task == "shop.shared"


def test_a_signatures_arguments_come_first_and_the_steps_keywords_win() -> None:
    step = Step("a", add.s(1, x="old", z=0), (2,), {"x": "new"})
    assert specs(step) == (StepSpec(key="a", task="shop.add", args=[1, 2], kwargs={"x": "new", "z": 0}),)


def test_a_signatures_options_are_the_steps_unless_it_says_otherwise() -> None:
    signature = add.s(1, 2).set(queue="q", priority=3, expires=10, routing_key="old")
    (first, second) = specs(
        Step("a", signature),
        Step("b", signature, queue="mine", options={"routing_key": "new"}),
    )
    assert (first.queue, first.priority) == ("q", 3)
    assert first.options == {"expires": 10, "routing_key": "old"}
    assert (second.queue, second.priority) == ("mine", 3)
    assert second.options == {"expires": 10, "routing_key": "new"}


@pytest.mark.parametrize("option", [{"countdown": 5}, {"link": [add.s(1)]}, {"task_id": "x"}])
def test_a_signatures_options_that_cannot_be_kept_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidPlan, match=r"cannot be an option|is not JSON"):
        specs(Step("a", add.s(1, 2).set(**option)))


def test_after_takes_steps_and_keys_one_or_many() -> None:
    a, b = Step("a", add), Step("b", add, after="a")
    plan = specs(a, b, Step("c", add, after=a), Step("d", add, after=[a, "b"]), Step("e", add, after=(b,)))
    assert [step.after for step in plan] == [(), ("a",), ("a",), ("a", "b"), ("b",)]


def test_a_result_stands_for_data_wherever_arguments_go() -> None:
    a = Step("a-1", add)
    (_, b) = specs(
        a,
        Step("b", add, [a.result, {"deep": [a.result["x"]]}], {"y": a.result[0][-1]}, after=a, when=a.result["ok"]),
    )
    assert b.args == [{"$expr": 'results."a-1"'}, {"deep": [{"$expr": 'results."a-1"."x"'}]}]
    assert b.kwargs == {"y": {"$expr": 'results."a-1"[0][-1]'}}
    assert b.when == 'results."a-1"."ok"'
    assert b.references() == {"a-1"}


def test_a_result_may_be_mapped_over() -> None:
    a = Step("a", add)
    (_, b) = specs(a, Step("b", add, [{"$expr": "item"}], after=a, map=a.result["lines"]))
    assert b.map == MapSpec(over='results."a"."lines"')


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b[0]", 1),
        ("a.b[-1]", 3),
        ("a.b | [1]", 2),
        ("a.none || a.b", [1, 2, 3]),
        ("l[*].n", [1, 2]),
        ("[l][0]", [{"n": 1}, {"n": 2}]),
    ],
)
def test_a_path_finds_what_it_would_find_in_the_result_itself(path: str, found: object) -> None:
    data = {"a": {"b": [1, 2, 3]}, "l": [{"n": 1}, {"n": 2}]}
    result = Step("k.1", add).result.path(path)
    assert evaluate(result.expression, {"results": {"k.1": data}}) == found


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"])) | st.integers(-3, 3), max_size=4))
def test_indexing_a_result_finds_what_indexing_the_data_would(parts: list[str | int]) -> None:
    data, result = "found", Step("k", add).result
    for part in reversed(parts):
        data = {part: data} if isinstance(part, str) else [data, data, data, data]
    for part in parts:
        result = result[part]
    assert evaluate(result.expression, {"results": {"k": data}}) == "found"


def test_a_result_is_no_collection() -> None:
    """Indexing without an end would otherwise make iteration go on for ever."""
    result = Step("a", add).result
    with pytest.raises(TypeError):
        list(result)
    with pytest.raises(TypeError):
        result[1:2]
    assert repr(result) == "Result('results.\"a\"')"
    assert isinstance(result["x"], Result)


@pytest.mark.parametrize("task", [5, print, object()])
def test_what_is_no_task_is_refused_at_once(task: object) -> None:
    with pytest.raises(TypeError, match="a Celery task, its name or a Signature"):
        Step("a", task)


def test_a_canvas_is_no_task() -> None:
    with pytest.raises(TypeError, match="from_canvas"):
        Step("a", add.s(1, 2) | add.s(3))


def test_every_option_of_a_step_is_written_to_the_plan() -> None:
    options = {
        "queue": "q",
        "priority": 1,
        "options": {"expires": 5},
        "retry": RetryPolicy(max_attempts=2),
        "timeout_s": 5.0,
        "when": "input.x",
        "approval": ApprovalSpec(approvers=("ann",)),
        "on_failure": "continue",
        "trigger": "all_settled",
        "map": MapSpec(over="input.l"),
        "on_external_revoke": "pause",
        "run_through": True,
    }
    (spec,) = specs(Step("a", add, **options))
    assert {name: getattr(spec, name) for name in options} == options
    assert set(StepSpec.model_fields) == {*options, "key", "task", "args", "kwargs", "after"}


def test_steps_may_be_mappings_and_specs_too() -> None:
    spec = StepSpec(key="b", task="t", after=("a",))
    assert specs({"key": "a", "task": "t"}, spec) == (StepSpec(key="a", task="t"), spec)


def test_an_invalid_workflow_is_refused_whole_with_every_fault() -> None:
    with pytest.raises(InvalidPlan) as caught:
        Workflow(" ", "", [Step("a", add, after="b"), Step("a b", add, prioritty=3)], deadline_s=0)
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == [
        "name",
        "task_description",
        "deadline_s",
        "steps[0].after",
        "steps[1].key",
        "steps[1].prioritty",
    ]


def test_an_empty_name_is_one_fault() -> None:
    with pytest.raises(InvalidPlan) as caught:
        Workflow("", "d", [Step("a", add)])
    assert len(caught.value.faults) == 1


def test_limits_are_those_given() -> None:
    steps = [Step("a", add), Step("b", add)]
    with pytest.raises(InvalidPlan, match="over the limit of 1"):
        Workflow("w", "d", steps, limits=PlanLimits(max_steps=1))


FULL = Workflow(
    "orders",
    "Handle an order:\nload, charge, tell",
    [
        Step("load", add.s(1).set(queue="q"), (2,), timeout_s=30),
        Step(
            "each",
            "shop.one",
            kwargs={"line": {"$expr": "item"}},
            after="load",
            map=MapSpec(over="results.load", max_parallel=3),
            retry=RetryPolicy(max_attempts=4, non_retryable=("ValueError",)),
        ),
        Step("ok", after="each", approval={"approvers": ["ann"], "deadline_s": 60}),
        Step("tell", shared, ["yes", "1e3", "2024-01-01", None, True, 0x10], after="ok", trigger="all_settled"),
    ],
    deadline_s=3600,
    max_parallel=5,
    on_external_revoke="pause",
    run_through=True,
)

FULL_YAML = """\
name: orders
task_description: |-
  Handle an order:
  load, charge, tell
deadline_s: 3600
max_parallel: 5
on_external_revoke: pause
run_through: true
steps:
  - {key: load, task: shop.add, args: [1, 2], queue: q, timeout: 30}
  - key: each
    task: shop.one
    kwargs:
      line: {$expr: item}
    after: load
    map:
      over: results.load
      max_parallel: 3
    retry: {max_attempts: 4, non_retryable: [ValueError]}
  - key: ok
    after: each
    approval: {approvers: ann, deadline_s: 60}
  - key: tell
    task: shop.shared
    args: [yes, "1e3", 2024-01-01, null, true, 0x10]
    after: [ok]
    trigger: all_settled
"""


def test_python_and_yaml_give_equal_plans() -> None:
    assert Workflow.from_yaml(FULL_YAML).plan == FULL.plan
    assert Workflow.from_yaml(FULL_YAML) == FULL


def test_a_workflow_survives_yaml_and_json() -> None:
    assert Workflow.from_yaml(FULL.to_yaml()) == FULL
    assert Workflow.from_dict(FULL.to_dict()) == FULL
    assert Workflow.from_dict(FULL.plan) == FULL


def test_a_workflow_knows_its_name_and_prints_it() -> None:
    assert (FULL.name, FULL.task_description) == ("orders", "Handle an order:\nload, charge, tell")
    assert repr(FULL) == "Workflow('orders', 4 steps)"
    assert Workflow("other", "x", FULL.plan.steps) != FULL
    assert len({FULL, Workflow.from_yaml(FULL_YAML)}) == 1
    assert FULL != "orders"
