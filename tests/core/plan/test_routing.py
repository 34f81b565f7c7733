"""The options of `apply_async` that a step may have, and why it may not have the others."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from interlock.core.plan import ROUTING_OPTIONS
from tests.core.plan_faults import faults_in


@pytest.mark.parametrize("name", ["countdown", "eta", "link", "link_error", "chord", "group_id", "task_id"])
def test_options_that_let_celery_decide_are_refused_with_the_reason(name: str) -> None:
    (fault,) = faults_in({"options": {name: 5}})
    assert fault.startswith(f"steps[0].options.{name}: cannot be an option: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue": "q"}, "options.queue: cannot be an option: it is a field of the step itself"),
        ({"time_limit": 5}, "options.time_limit: cannot be an option: use the step's timeout_s"),
        ({"routing_kee": "x"}, "options.routing_kee: unknown option (did you mean routing_key?)"),
        ({"expires": 0}, "options.expires: must be a number of seconds above 0"),
        ({"expires": "tomorrow"}, "options.expires: must be a number of seconds above 0"),
        ({"delivery_mode": True}, "options.delivery_mode: must be 1 (transient) or 2 (persistent)"),
        ({"headers": {"Interlock-Step": "x"}}, "options.headers: the header 'Interlock-Step' is reserved"),
        ({"headers": []}, "options.headers: must be an object"),
        ({"exchange": ""}, "options.exchange: must be a string"),
        (
            {"expires": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)},
            "options.expires: datetime is not JSON: write it as a string",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    assert f"steps[0].{said}" in faults_in({"options": options})


def test_every_routing_option_is_accepted() -> None:
    values = {"expires": 1.5, "delivery_mode": 2, "headers": {"x": 1}}
    assert faults_in({"options": {name: values.get(name, "x") for name in ROUTING_OPTIONS}}) == []
