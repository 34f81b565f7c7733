"""Faults of a plan: each with its field, and what was meant."""

from __future__ import annotations

from typing import Any

import pytest

from interlock.core.errors import InvalidPlan
from interlock.core.plan import PlanSpec
from tests.core.plan_faults import faults_in


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
