"""The checks of chaos find what they are for: each kind of violation, planted in a run that was sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import open_database
from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.operations.controller import WorkflowController
from interlock.core.queries.history import HistoryReader
from interlock.core.settings import Settings
from tests.chaos.checks import Evidence, Record, read_record, violations
from tests.chaos.ledger import Entry
from tests.chaos.plans import make_plans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interlock.core import Database
    from interlock.core.events import StateChange
    from tests.chaos.plans import Plan

Scene = tuple["Database", Record, Evidence]


@pytest.fixture
def database(migrated_sqlite_url: str) -> Iterator[Database]:
    """An empty database."""
    opened = open_database(migrated_sqlite_url)
    yield opened
    opened.dispose()


@pytest.fixture
def plan() -> Plan:
    """The first workflow of a load, a chain."""
    return make_plans("a", 1)[0]


@pytest.fixture
def scene(database: Database, plan: Plan) -> Scene:
    """The chain run to its end by hand, and what everybody else would know of it."""
    with database.session() as session:
        controller = WorkflowController(session, plan.session_id)
        run_id = controller.enqueue_workflow(plan.workflow.plan, idempotency_key=plan.name)
    attempts, ledger = Attempts(database, Settings.load({}, {})), {}
    for step in read_record(database).steps[run_id]:
        ref = AttemptRef(run_id, step.id, f"{step.id}.1", "token")
        assert attempts.claim(ref, "worker-1").granted
        done = {"value": plan.expected[step.key], "body": f"body of {step.key}"}
        attempts.complete(ref, done)
        entry = Entry(step.id, run_id, 1, done["body"], "begin")
        ledger[step.id] = [entry, replace(entry, what="effect", value=done["value"])]
    operator: Any = SimpleNamespace(cancelled=set(), paused=set(), approved=set(), faults=[])
    evidence = Evidence(
        plans={plan.name: plan},
        roll_calls={},
        run_ids={plan.name: run_id},
        ledger=ledger,
        received={run_id: HistoryReader(database, plan.session_id).changes(run_id)},
        operators=[operator],
    )
    return database, read_record(database), evidence


def test_a_sound_run_has_no_violation(scene: Scene) -> None:
    assert list(violations(*scene)) == []


@dataclass(frozen=True, slots=True)
class Sound:
    """What a corruption can touch."""

    run_id: str
    evidence: Evidence
    entries: list[Entry]
    changes: list[StateChange]
    operator: Any
    expected: dict[str, int]

    def replace(self, place: int, **fields: Any) -> None:
        """Change an entry of the first step's ledger."""
        self.entries[place] = replace(self.entries[place], **fields)

    def add(self, **fields: Any) -> None:
        """Another beginning of the first step's body."""
        self.entries.append(replace(self.entries[0], body="another", **fields))


PLANTED: dict[str, tuple[Callable[[Sound], Any], str]] = {
    "a run that was promised": (lambda it: it.evidence.run_ids.update(x="y"), "was promised and is not there"),
    "a run that nobody knows of": (lambda it: it.evidence.run_ids.clear(), "nobody was told of it"),
    "no effect": (lambda it: it.entries.pop(), "completed without an effect"),
    "a body twice in an attempt": (lambda it: it.add(), "bodies per attempt: {1: 2}"),
    "a body without a move": (lambda it: it.add(attempt=2), "2 bodies, 1 moves to running"),
    "a body of nobody": (lambda it: it.evidence.ledger.update(x=it.entries), "that is not there"),
    "another sum": (lambda it: it.expected.update(s0=-1), "should be -1"),
    "a result of no body": (lambda it: it.replace(1, body="another"), "is that of no body in the ledger"),
    "a change not received": (lambda it: it.changes.pop(3), "missing [4]"),
    "a change received twice": (lambda it: it.changes.append(it.changes[0]), "twice [1]"),
    "two changes in the wrong order": (lambda it: it.changes.insert(0, it.changes.pop(1)), "missing [], twice []"),
    "a pause never carried out": (lambda it: it.operator.paused.add(it.run_id), "paused 0 times, asked for 1 times"),
    "an approval without effect": (lambda it: it.operator.approved.add((it.run_id, "s1")), "went on 0 times"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_kind_of_violation_is_found(scene: Scene, name: str) -> None:
    database, record, evidence = scene
    plant, words = PLANTED[name]
    (run_id,), (changes,), (plan,) = record.runs, evidence.received.values(), evidence.plans.values()
    entries = evidence.ledger[record.steps[run_id][0].id]
    plant(Sound(run_id, evidence, entries, changes, evidence.operators[0], plan.expected))
    found = [text for text in violations(database, record, evidence) if words in text]
    assert found


def test_of_many_violations_the_first_ten_are_shown(scene: Scene) -> None:
    database, record, evidence = scene
    evidence.operators[0].faults += [f"fault {number}" for number in range(15)]
    found = [text for text in violations(database, record, evidence) if text.startswith("commands: ")]
    assert found[-1] == "commands: and 5 more"
    assert len(found) == 11
