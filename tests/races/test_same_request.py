"""The same command at two engines at once, on PostgreSQL: it acts once, and both answer with the one outcome."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.settings import Settings
from interlock.signals.control.command import Command, parse_args
from interlock.signals.control.handler import CommandHandler
from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows

ROUNDS = 100
DEADLINE_S = 30.0


@pytest.mark.parametrize("verb", ["pause", "cancel", "approve"])
def test_a_command_delivered_twice_at_once_acts_once(
    database: Database,
    controller: WorkflowController,
    rows: Rows,
    verb: str,
) -> None:
    handlers = [CommandHandler(database, Settings(), None) for _ in range(2)]
    barrier = Barrier(2, timeout=DEADLINE_S)

    def deliver(handler: CommandHandler, command: Command) -> dict[str, Any]:
        barrier.wait()
        return handler.handle(command, parse_args(command))

    plan = [step("a"), {"key": "g", "approval": True}]
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            run_id = controller.enqueue_workflow(plan, task_description="x")
            command = Command(
                id=f"{verb}-{number}", command=verb, workflow_id=run_id, args={"step": "g"} if verb == "approve" else {}
            )
            before = rows.run(run_id).seq
            answers = [pool.submit(deliver, handler, command) for handler in handlers]
            first, second = (answer.result(DEADLINE_S) for answer in answers)
            assert first == second == {"ok": True, "result": None}
            after = rows.run(run_id).seq
            assert after > before
            assert handlers[0].handle(command, parse_args(command)) == first
            assert rows.run(run_id).seq == after
            controller.cancel_workflow(run_id)
