"""Chain, group and chord: their equivalents, and reasons where there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from interlock.client.authoring.workflow import Workflow
from interlock.core.errors import InvalidPlan

app = Celery("test_canvas", set_as_current=False)


@app.task(name="canvas.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="canvas.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


def steps_of(canvas: object) -> list[tuple[str, list[Any], list[str]]]:
    """Steps as (key, args, after)."""
    plan = Workflow.from_canvas(canvas, "w", "for a test").plan
    return [(step.key, step.args, list(step.after)) for step in plan.steps]


def result(key: str) -> dict[str, str]:
    return {"$expr": f'results."{key}"'}


def faults_of(canvas: object) -> list[str]:
    with pytest.raises(InvalidPlan) as caught:
        Workflow.from_canvas(canvas, "w", "for a test")
    return list(caught.value.faults)


def test_a_signature_is_one_step() -> None:
    plan = Workflow.from_canvas(add.s(1, y=2).set(queue="q", expires=5), "w", "d").plan
    assert plan.document()["steps"] == [
        {
            "key": "add",
            "task": "canvas.add",
            "args": [1],
            "kwargs": {"y": 2},
            "queue": "q",
            "options": {"expires": 5},
        }
    ]


def test_a_canvas_can_be_run_through() -> None:
    assert Workflow.from_canvas(chain(add.s(1, 2), add.s(3)), "w", "d", run_through=True).plan.run_through
    assert not Workflow.from_canvas(chain(add.s(1, 2), add.s(3)), "w", "d").plan.run_through


def test_a_chain_passes_each_result_on_as_the_first_argument() -> None:
    assert steps_of(chain(add.s(1, 2), add.s(3), add.s(4))) == [
        ("add", [1, 2], []),
        ("add-2", [result("add"), 3], ["add"]),
        ("add-3", [result("add-2"), 4], ["add-2"]),
    ]


def test_an_immutable_signature_takes_no_result_but_keeps_its_place() -> None:
    assert steps_of(add.s(1, 2) | add.si(3, 4)) == [("add", [1, 2], []), ("add-2", [3, 4], ["add"])]


def test_a_group_runs_in_parallel() -> None:
    assert steps_of(group(add.s(1, 2), add.s(3, 4))) == [("add", [1, 2], []), ("add-2", [3, 4], [])]


def test_a_chord_gives_its_body_the_list_of_results() -> None:
    assert steps_of(chord([add.s(1, 2), add.s(3, 4)], total.s())) == [
        ("add", [1, 2], []),
        ("add-2", [3, 4], []),
        ("total", [[result("add"), result("add-2")]], ["add", "add-2"]),
    ]


def test_a_group_in_a_chain_is_fanned_out_and_joined() -> None:
    assert steps_of(chain(add.s(1, 2), group(add.s(3), add.s(4)), total.s(), add.s(5))) == [
        ("add", [1, 2], []),
        ("add-2", [result("add"), 3], ["add"]),
        ("add-3", [result("add"), 4], ["add"]),
        ("total", [[result("add-2"), result("add-3")]], ["add-2", "add-3"]),
        ("add-4", [result("total"), 5], ["total"]),
    ]


def test_a_chain_in_a_chord_gives_its_last_result() -> None:
    assert steps_of(chord([chain(add.s(1, 2), add.s(3)), add.s(4, 5)], total.s())) == [
        ("add", [1, 2], []),
        ("add-2", [result("add"), 3], ["add"]),
        ("add-3", [4, 5], []),
        ("total", [[result("add-2"), result("add-3")]], ["add-2", "add-3"]),
    ]


def test_two_groups_in_a_row_are_joined_for_each_member() -> None:
    both = [result("add"), result("add-2")]
    assert steps_of(group(add.s(1, 2), add.s(3, 4)) | group(total.s(), total.s()))[2:] == [
        ("total", [both], ["add", "add-2"]),
        ("total-2", [both], ["add", "add-2"]),
    ]


def test_a_group_in_a_group_gives_a_list_in_a_list() -> None:
    canvas = chord([group(add.s(1, 2), add.s(3, 4)), add.s(5, 6)], total.s())
    assert steps_of(canvas)[-1][1] == [[[result("add"), result("add-2")], result("add-3")]]


def test_a_canvas_that_went_through_json_is_the_same() -> None:
    canvas = chain(add.s(1, 2), group(add.s(3), add.s(4)), total.s())
    assert steps_of(json.loads(json.dumps(canvas))) == steps_of(canvas)


def test_data_that_looks_like_an_expression_stays_data() -> None:
    (step,) = steps_of(add.s({"$expr": "input"}, [{"$literal": 1}]))
    assert step[1] == [{"$literal": {"$expr": "input"}}, {"$literal": [{"$literal": 1}]}]


@pytest.mark.parametrize(
    ("canvas", "said"),
    [
        (add.map([1]), "canvas: celery.map has no equivalent: it runs all items in one message"),
        (total.starmap([[1]]), "canvas: celery.starmap has no equivalent"),
        (group(add.s(1, 2), add.chunks([(1, 2)], 1)), "canvas.group[1]: celery.chunks has no equivalent"),
        (add.s(1, 2).set(link=[total.s()]), "canvas: link has no equivalent"),
        (chain(add.s(1, 2), add.s(3).on_error(total.s())), "canvas.chain[1]: link_error has no equivalent"),
        (group(add.s(1, 2), add.s(1, 2)).set(queue="q"), "canvas: options of a group (queue) have no equivalent"),
        (chord([add.s(1, 2)], total.s()).set(queue="q"), "canvas: options of a chord (queue) have no equivalent"),
        (group([]), "canvas.group: is empty"),
        (5, "canvas: int is not a Signature"),
        (add, "is not a Signature: call .s() or .si()"),
        ({"task": "x", "subtask_type": "mystery", "kwargs": {}}, "canvas: a mystery has no equivalent"),
        (add.s(1, 2).set(countdown=5), "steps[0].options.countdown: cannot be an option"),
        (add.s({1}, 2), "steps[0].args[0]: set is not JSON"),
    ],
)
def test_a_canvas_without_an_equivalent_is_refused_with_the_place_and_the_reason(canvas: object, said: str) -> None:
    assert any(said in fault for fault in faults_of(canvas)), faults_of(canvas)


def test_every_part_without_an_equivalent_is_listed() -> None:
    canvas = group(add.map([1]), add.s(1, 2), total.starmap([[1]]))
    assert [fault.partition(":")[0] for fault in faults_of(canvas)] == ["canvas.group[0]", "canvas.group[2]"]


def test_task_names_become_keys_that_are_names() -> None:
    first = add.s(1, 2).clone()
    first["task"] = "shop.tasks.prüfe alles"
    second = first.clone()
    assert [key for key, _, _ in steps_of(group(first, second))] == ["pr_fe_alles", "pr_fe_alles-2"]
