"""Guards of one's own, and the state machine in a program."""

from typing import Any, assert_type

from interlock.core import Database, GuardContext, StateMachine, StepState, WorkflowController, guard, open_database
from interlock.core.verify import Finding, Verification, verify


@guard("weekday")
def weekday(context: GuardContext) -> bool:
    """Look at a move."""
    assert_type(context.actor, str)
    return context.to_state != StepState.RUNNING


database = open_database("sqlite:///x.db", echo=False)
assert_type(database, Database)
with database.session() as session:
    assert_type(WorkflowController(session).get_workflow_status("x"), dict[str, Any] | None)
    assert_type(StateMachine(session, "workflow_run").get_current_state("x"), str)

for finding in verify(database, Verification(), "x"):
    assert_type(finding, Finding)
