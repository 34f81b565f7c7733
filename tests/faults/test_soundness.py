"""The checker of the fault suite sees what it is there to see: one deviation of each kind, planted behind a run that was sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from interlock.core.database.tables import WorkflowStep
from tests.faults.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.soundness import Soundness
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """A run that nothing disturbed."""
    deployment.worker("undisturbed")
    run_id, status = deployment.run(step("a", "fails_first", 1), step("b", "echo", "b", after=["a"]))
    assert status == "completed"
    return run_id


def test_a_run_that_is_retried_once_is_sound(sound: Soundness, run_id: str) -> None:
    assert sound.findings() == []
    assert len(sound.record.of(run_id)) > 8


def test_a_body_that_ran_twice_is_found(sound: Soundness, deployment: Deployment, run_id: str) -> None:
    step_id = deployment.step_id(run_id, "b")
    with deployment.ledger.tampered() as effects:
        effects.append(next(each for each in effects if each["step_id"] == step_id))
        assert any("ran 2 times" in text for text in sound.findings())


def test_a_body_that_no_history_explains_is_found(sound: Soundness, deployment: Deployment, run_id: str) -> None:
    step_id = deployment.step_id(run_id, "b")
    with deployment.ledger.tampered() as effects:
        effects.append({"step_id": step_id, "task_id": f"{step_id}.2", "pid": 1, "what": "begin", "result": None})
        assert sound.findings() == ["ledger: b: 2 bodies ran, its history explains 1"]


def test_a_completed_step_without_a_body_is_found(sound: Soundness, deployment: Deployment, run_id: str) -> None:
    step_id = deployment.step_id(run_id, "b")
    with deployment.ledger.tampered() as effects:
        effects[:] = [each for each in effects if each["step_id"] != step_id]
        (finding,) = sound.findings()
    assert "is completed, and no body" in finding


def test_a_result_that_no_body_returned_is_found(sound: Soundness, deployment: Deployment, run_id: str) -> None:
    steps = WorkflowStep.__table__

    def store(result: str) -> Callable[..., None]:
        return lambda connection, _: connection.execute(
            update(steps).where(steps.c.run_id == run_id, steps.c.key == "b").values(result=result)
        )

    deployment.database.transact(store("forged"))
    try:
        (finding,) = sound.findings()
    finally:
        deployment.database.transact(store("b"))
    assert "'forged' is none of ['b']" in finding


def test_a_change_that_the_subscriber_missed_or_got_twice_is_found(sound: Soundness, run_id: str) -> None:
    received = sound.record.of(run_id)
    with sound.record.tampered(run_id) as record:
        record[:] = received[:-1]
        (finding,) = sound.findings(patience_s=0)
        assert finding.endswith(f"{len(received)} changes, {len(received) - 1} received")
        record[:] = [*received, received[-1]]
        (finding,) = sound.findings()
        assert "the history is" in finding
