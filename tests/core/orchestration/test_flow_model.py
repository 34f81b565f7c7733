"""Random plans and random fates on a real database; after every operation the rows are what the model of a run says.

The operations are drawn from what the state of the run invites, as data of one test: a state machine of hypothesis would draw most
of them where they are refused, and would have to be told of the database and its session by the back door.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock.core.model.transitions import WORKFLOW_TABLE
from tests.core.checker import check
from tests.core.possible_operations import anything, due, inviting
from tests.core.rows import forget_everything
from tests.core.side_by_side import DELAY_S, SideBySide
from tests.model.plans import Plan, StepPlan, retrying

if TYPE_CHECKING:
    from interlock.core import Database

OPERATIONS, MANY_OPERATIONS = 30, 100
_ROUNDS = 200  # that a run may need to end when everything is done that is due


@st.composite
def plans(draw: st.DrawFn, most: int = 7) -> Plan:
    """Some steps; each may wait for any of those before it."""
    found: list[StepPlan] = []
    for index in range(draw(st.integers(1, most))):
        earlier = [made.key for made in found]
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        triggers = ["all_completed", "all_settled", *(["any_failed"] if after else [])]
        condition = draw(st.sampled_from([True, True, True, True, False, None]))
        asks = draw(st.sampled_from([False, False, True]))
        found.append(
            StepPlan(
                key=f"s{index}",
                after=tuple(after),
                trigger=draw(st.sampled_from(triggers)),  # type: ignore[arg-type]
                # Which of several steps that begin together a failing condition finds begun is not defined.
                on_failure="continue" if condition is None else draw(st.sampled_from(["fail", "continue", "pause"])),
                policy=retrying(
                    max_attempts=draw(st.integers(1, 2)),
                    max_lost=draw(st.integers(1, 2)),
                    delay_s=draw(st.sampled_from([0.0, DELAY_S])),
                ),
                condition=condition,
                asks=asks,
                works=not asks or draw(st.booleans()),
                on_reject=draw(st.sampled_from(["cancel", "continue"])),
                default=draw(st.sampled_from(["approve", "reject"])),
                on_revoke=draw(st.sampled_from(["cancel", "pause", "redispatch"])),
            ),
        )
    return Plan(found)


def _play(database: Database, plan: Plan, data: st.DataObject, operations: int) -> None:
    forget_everything(database)  # the checker replays only this run
    with database.session() as session:
        both = SideBySide(database, session, plan)
        for _ in range(operations):
            source = data.draw(st.sampled_from([inviting, inviting, inviting, anything]), label="from")
            operation = data.draw(st.sampled_from(source(both) or anything(both)), label="operation")
            both.do(
                *operation, lost=data.draw(st.sampled_from([False, False, False, True]), label="its messages are lost")
            )
        if data.draw(st.booleans(), label="in the end it is cancelled"):
            both.do("cancel")
        _end(both)
        both.do("sweep")
    check(database)


def _end(both: SideBySide) -> None:
    """Whatever has happened: where everything is done that is due, the run ends."""
    for _ in range(_ROUNDS):
        if WORKFLOW_TABLE.is_terminal(both.model.state):
            return
        both.do(*due(both)[0])
    raise AssertionError(both.model.state)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
@settings(max_examples=20, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_sqlite_agrees_with_the_model(unchecked_database: Database, plan: Plan, data: st.DataObject) -> None:
    _play(unchecked_database, plan, data, OPERATIONS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@settings(max_examples=6, suppress_health_check=QUIET)
@given(plan=plans(), data=st.data())
def test_postgresql_agrees_with_the_model(unchecked_database: Database, plan: Plan, data: st.DataObject) -> None:
    _play(unchecked_database, plan, data, OPERATIONS)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@settings(max_examples=100, suppress_health_check=QUIET)
@given(plan=plans(most=10), data=st.data())
def test_both_databases_agree_with_the_model_over_many_long_runs(
    unchecked_database: Database, plan: Plan, data: st.DataObject
) -> None:
    _play(unchecked_database, plan, data, MANY_OPERATIONS)
