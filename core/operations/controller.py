"""`WorkflowController`: every operation on one session's runs, for code that has a database at hand.

Client, control queue and command line end here as well, by the table of verbs (`signals/control/verbs.py`).
"""

from __future__ import annotations

from typing import Any

from interlock.core.database.sessions import read_in_session
from interlock.core.queries.status import run_status

from .run_creation import RunCreation
from .run_operations import RunOperations
from .step_operations import StepOperations

__all__ = ["WorkflowController"]


class WorkflowController(RunCreation, RunOperations, StepOperations):
    """Creates runs and moves them, with everything that follows.

    Each operation is one transaction: a savepoint in the caller's where one is open, its own otherwise.
    """

    def get_workflow_status(self, run_id: str) -> dict[str, Any] | None:
        """The run and its steps as JSON, or None where this session has no such run; see `queries.status.run_status`."""
        return read_in_session(self._session, lambda connection: run_status(connection, run_id, self.session_id))
