"""Fault points: nothing without a plan, and what a rule says where one is obeyed."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from interlock.core.database.errors import is_lost_connection
from interlock.core.database.tables import WorkflowRun
from interlock.core.fault_points import PLACES, fault_point
from tests.fault_plans import FaultInjected, FaultPlan, FaultRule, injected
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from interlock.core import Database, WorkflowController

    from .worker_double import WorkerDouble

PLAN = {"task_description": "break it", "steps": [{"key": "a", "task": "t"}]}


def test_without_a_plan_every_place_is_passed_once() -> None:
    assert {fault_point(place) for place in PLACES} == {1}


def test_the_places_are_those_that_the_code_names() -> None:
    named: set[str] = set()
    for folder in ("core", "signals", "worker", "client"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
                named |= _places_of(call)
    assert named == set(PLACES)


def _places_of(call: ast.Call) -> set[str]:
    """What a call marks: `fault_point("x")`, `partial(fault_point, "x")`, a transaction of a kind (two), a statement of one."""
    names = [ast.unparse(part).rpartition(".")[2] for part in (call.func, *call.args[:1])]
    words = [part.value for part in call.args[:2] if isinstance(part, ast.Constant)]
    if names[0] == "transact":
        kind = words[0] if words else "upkeep"
        return {f"{kind}.commit", f"{kind}.committed"}
    if names[0] == "run_prepared":
        return {f"{ast.literal_eval(call.args[2])}.sent"}
    return set(words[:1]) if "fault_point" in names[:2] else set()


def test_a_rule_acts_as_often_as_it_says_after_those_it_skips(tmp_path: Path) -> None:
    with injected(tmp_path, FaultRule(place="dispatch.publish", action="drop", skip=1, times=2)) as plan:
        assert [fault_point("dispatch.publish") for _ in range(4)] == [1, 0, 0, 1]
        assert plan.hits("dispatch.publish") == 4
        assert plan.hits("events.publish") == 0


def test_a_rule_means_only_its_subject(tmp_path: Path) -> None:
    with injected(tmp_path, FaultRule(place="body.begin", action="raise", subject="x.1")):
        assert fault_point("body.begin", "y.1") == 1
        with pytest.raises(FaultInjected):
            fault_point("body.begin", "x.1")


def test_the_hits_of_each_rule_are_counted_apart(tmp_path: Path) -> None:
    rules = [FaultRule(place="body.begin", subject=name, times=None) for name in ("x", "y")]
    with injected(tmp_path, *rules) as plan:
        for task_id in ("x.1", "y.1", "y.2"):
            fault_point("body.begin", task_id)
    assert [plan.hits("body.begin", name) for name in ("x", "y", None, "z")] == [1, 2, 2, 0]


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no place 'claim\.comitted'"):
        FaultRule(place="claim.comitted")


@pytest.mark.integration
def test_a_crash_ends_the_process_and_is_counted_over_all_of_them(tmp_path: Path) -> None:
    plan = FaultPlan(folder=tmp_path, rules=(FaultRule(place="body.begin", action="crash"),))
    script = "from interlock.core.fault_points import fault_point; fault_point('body.begin')"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, env=plan.environment(), check=False).returncode == -signal.SIGKILL
    assert subprocess.run(command, env=plan.environment(), check=False).returncode == 0
    assert plan.hits("body.begin") == 2


def test_before_a_commit_nothing_is_stored_and_behind_it_everything(
    database: Database, controller: WorkflowController, worker: WorkerDouble, tmp_path: Path
) -> None:
    run_id = controller.enqueue_workflow(PLAN)
    ref = worker.take("a")
    with injected(tmp_path, FaultRule(place="claim.commit", action="raise")), pytest.raises(FaultInjected):
        worker.attempts.claim(ref, "worker@1")
    assert controller.get_workflow_status(run_id)["steps"][0]["status"] == "pending"
    assert worker.attempts.claim(ref, "worker@1").granted
    with (
        injected(tmp_path, FaultRule(place="complete.committed", action="lose_answer")),
        pytest.raises(Exception, match="the connection was lost") as lost,
    ):
        worker.attempts.complete(ref, 1)
    assert is_lost_connection(lost.value)
    with database.reading() as connection:
        assert connection.scalar(select(WorkflowRun.status)) == "completed"
