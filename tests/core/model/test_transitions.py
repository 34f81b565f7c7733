"""The transition tables and the states, as the specification has them."""

from __future__ import annotations

from interlock.core.model.transitions import STEP_TABLE, TABLES, WORKFLOW_TABLE
from tests.core.edges import STATES, STEP_EDGES, TERMINAL, WORKFLOW_EDGES


def test_the_tables_have_14_and_13_edges_and_those_of_the_specification() -> None:
    assert len(WORKFLOW_EDGES) == 14
    assert len(STEP_EDGES) == 13
    assert {(str(a), str(b)) for a, b in WORKFLOW_TABLE.edges()} == WORKFLOW_EDGES
    assert {(str(a), str(b)) for a, b in STEP_TABLE.edges()} == STEP_EDGES


def test_the_enums_have_the_eight_states_each_and_equal_plain_strings() -> None:
    for kind in TABLES:
        members = list(TABLES[kind].states)
        assert members == list(STATES[kind])
        assert [member.name for member in members] == [state.upper() for state in STATES[kind]]
        assert {str(state) for state in TABLES[kind].terminal} == TERMINAL[kind]
