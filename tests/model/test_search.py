"""Every state that a small run can reach, and every way in which the rules could be wrong that we could think of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from . import flow
from .mutants import MUTANTS
from .search import search
from .shapes import ALL, SMALL

if TYPE_CHECKING:
    from .run import Run

# A run is planned before the model begins.
_EDGES = [edge for edge in WORKFLOW_TABLE.edges() if edge[0] not in (WorkflowState.DRAFT, WorkflowState.PLANNING)]


@pytest.mark.parametrize("name", SMALL)
def test_no_state_of_a_small_run_breaks_an_invariant_and_each_can_end(name: str) -> None:
    found = search(SMALL[name])
    assert found.counterexample is None, f"\n{name}\n{found.counterexample}"
    assert found.transitions > found.states > 100


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_bug_in_the_rules_is_found_and_told_by_what_leads_to_it(mutant: type[Run]) -> None:
    name, fault = MUTANTS[mutant]
    wrong = search(ALL[name], mutant).counterexample
    assert wrong is not None, f"nothing wrong is found in: {mutant.__doc__}"
    assert fault in wrong.fault
    lines = str(wrong).splitlines()
    assert lines[0] == f"violated: {wrong.fault}"
    assert [line.split(". ", 1)[1] for line in lines[1 : 1 + len(wrong.events)]] == list(wrong.events)


def test_the_counterexample_is_the_shortest_one() -> None:
    [while_paused] = [mutant for mutant in MUTANTS if mutant.__name__ == "ClaimsWhilePaused"]
    wrong = search(SMALL["one step"], while_paused).counterexample
    assert str(wrong).splitlines() == [
        "violated: a claim of a was granted while the run is paused",
        "  1. the operator pauses the run",
        "  2. a worker takes the message of a",
        "  the run is paused",
        "  a is pending, a message is on its way",
    ]


@pytest.mark.parametrize("edge", list(STEP_TABLE.edges()), ids=" → ".join)
def test_every_edge_of_a_step_is_taken_from_the_table_of_the_product(
    edge: tuple[StepState, StepState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the edge the search finds who would take it."""
    source, target = edge
    targets = {**STEP_TABLE.targets, source: tuple(one for one in STEP_TABLE.targets[source] if one is not target)}
    monkeypatch.setattr(flow, "STEP_TABLE", replace(STEP_TABLE, targets=targets))
    assert _missing(f": {source} → {target}", "conditions" if target is StepState.SKIPPED else "a question")


@pytest.mark.parametrize("edge", _EDGES, ids=" → ".join)
def test_every_edge_of_a_run_is_taken_from_the_table_of_the_product(
    edge: tuple[WorkflowState, WorkflowState], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = edge
    targets = {
        **WORKFLOW_TABLE.targets,
        source: tuple(one for one in WORKFLOW_TABLE.targets[source] if one is not target),
    }
    monkeypatch.setattr(flow, "WORKFLOW_TABLE", replace(WORKFLOW_TABLE, targets=targets))
    assert _missing(f"run: {source} → {target}")


def _missing(fault: str, plan: str = "a question") -> bool:
    wrong = search(SMALL[plan]).counterexample
    return wrong is not None and fault in wrong.fault
