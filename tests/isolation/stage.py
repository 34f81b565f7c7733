"""Runs of the session `red` in every state that a verb can apply to, and a picture of all that `red` has, to compare later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from sqlalchemy import select, update

from interlock.core import WorkflowController
from interlock.core.database.tables import Base, WorkflowStep
from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.signals.control.admission import Admission, Admitted
from interlock.signals.control.handler import CommandHandler
from tests.core.rows import step
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database
    from interlock.signals.control.command import Command

OURS: Final = "red"
THEIRS: Final = "blue"
PLAN: Final = [step("a"), step("b")]


class Stage:
    """A database with runs of `red`, for acts of `blue`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.settings = Settings()
        self.worker = WorkerDouble(database, self.settings)
        self.handler = CommandHandler(database, self.settings, None)
        self.admission = Admission(self.settings)

    def run_in(self, state: str) -> str:
        """A new run of `red` in this state; its name and input are words that `blue` must not come to see."""
        with self.database.session() as session:
            controller = WorkflowController(session, OURS, settings=self.settings)
            if state == "planning":
                return controller.create_unplanned("A red errand.", "red-run", input="red-input")
            options = {"approval": True} if state == "waiting" else {"on_failure": "continue"}
            plan = [step("a", **options), *([] if state == "ended" else [step("b")])]
            if state == "planned":
                run_id = controller.create_unplanned("A red errand.", "red-run")
                controller.set_plan(run_id, plan)
                return run_id
            enqueue: Any = controller.enqueue_workflow
            run_id = str(enqueue(plan, task_description="A red errand.", name="red-run", input="red-input"))
        self._play(run_id, state)
        return run_id

    def _play(self, run_id: str, state: str) -> None:
        acts: dict[str, Callable[[], Any]] = {
            "executing": lambda: self.worker.claim("a"),
            "overdue": lambda: self._let_be_due(run_id),
            "step_paused": lambda: (self.worker.claim("a"), self._ours("pause_step", run_id, "a")),
            "paused": lambda: (self.worker.claim("a"), self._ours("pause_workflow", run_id)),
            "failed": lambda: self.worker.run_failing("a"),
            "completed": lambda: (self.worker.run("a", "red-result"), self.worker.run("b", "red-result")),
            "ended": lambda: (self.worker.claim("a"), self._ours("cancel_workflow", run_id)),
            "waiting": lambda: None,
        }
        acts[state]()
        self.worker.queue.clear()

    def _let_be_due(self, run_id: str) -> None:
        with self.database.engine.begin() as connection:
            ours = update(WorkflowStep).where(WorkflowStep.run_id == run_id)
            connection.execute(ours.values(dispatch_check_at=seconds_after(-1)))

    def _ours(self, method: str, *args: str) -> None:
        with self.database.session() as session:
            getattr(WorkflowController(session, OURS, settings=self.settings), method)(*args)

    def picture(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row that is not `blue`'s."""
        with self.database.reading() as connection:
            return {
                table.name: sorted(
                    (tuple(row) for row in connection.execute(select(table)) if THEIRS not in map(str, row)), key=repr
                )
                for table in Base.metadata.sorted_tables
            }

    def command(self, verb: str, run_id: str | None, session_id: str, args: dict[str, Any]) -> dict[str, Any]:
        """What the control queue answers: through JSON, admission and the handler, as an engine does it."""
        fields = {"id": uuid4().hex, "command": verb, "session_id": session_id, "workflow_id": run_id, "args": args}
        found = self.admission.read(json.dumps(fields))
        assert isinstance(found, Admitted), found
        answer: dict[str, Any] = json.loads(json.dumps(self.handler.handle(found.command, found.args)))
        return answer


class LocalLink:
    """Stands in for `ControlLink`: the client's commands reach the same admission and handler, without a broker between."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def handle(self, command: Command) -> dict[str, Any]:
        """Carry the command out, or say why not, as the far end would."""
        found = self._stage.admission.read(json.dumps(command.document()))
        assert isinstance(found, Admitted), found
        answer: dict[str, Any] = json.loads(json.dumps(self._stage.handler.handle(found.command, found.args)))
        return answer

    def send(self, command: Command) -> None:
        """As `handle`, and nobody hears the outcome."""
        self.handle(command)


def told(error: BaseException, run_id: str) -> tuple[str, str]:
    """An error as its receiver sees it, the run's id apart."""
    return type(error).__name__, f"{error} {vars(error)}".replace(run_id, "RUN")
