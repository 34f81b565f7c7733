"""Fixtures of the tests of state machines and of guards on their edges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import StateMachine
from interlock.core.machine.guard_rules import GuardRule, GuardRules, attach_rules, rules_of
from tests.core.office_hours import asked, closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from interlock.core import Database


@pytest.fixture
def machine(session: Session) -> StateMachine:
    """A machine of runs."""
    return StateMachine(session, "workflow_run")


@pytest.fixture(autouse=True)
def _open_office() -> Iterator[None]:
    yield
    closed.clear()
    asked.clear()


@pytest.fixture
def attach(unchecked_database: Database, database: Database) -> Callable[..., None]:  # noqa: ARG001 - checked at the end
    """Attach `tests.office_hours` to an edge of the database."""

    def attach_rule(entity: str, source: str, target: str, **options: Any) -> None:
        rule = GuardRule(entity, source, target, ("tests.office_hours",), place="guards.yaml:3")
        rules = [*rules_of(unchecked_database.engine).all, replace(rule, **options)]
        attach_rules(unchecked_database.engine, GuardRules(rules))

    return attach_rule


@pytest.fixture
def step_machine(session: Session) -> StateMachine:
    """A machine of steps."""
    return StateMachine(session, "workflow_step")
