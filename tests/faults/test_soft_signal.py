"""F35: the soft signal arrives where it must do no harm: in an idle child, in a claim, in a completion, in a foreign task.

What Interlock sends is a signal with a note beside it that names the attempt; the tests send the same, at the wrong moment. Where
a moment is one that MAIN itself could hit, MAIN sends it.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import select

from interlock.core.database.tables import WorkflowRun
from interlock.worker.interrupt_notes import InterruptNotes
from tests.fault_plans import FaultRule
from tests.faults.steps import blocked, held, step, task
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, engine_pid

if TYPE_CHECKING:
    from tests.faults.conftest import FaultReport, Victim, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

STORM_STEPS = 100

_runs = WorkflowRun.__table__


@pytest.fixture(scope="module")
def queue(deployment: Deployment) -> str:
    """The queue of a worker with one slot, so that the next task runs in the same process."""
    deployment.worker("signalled", concurrency=1, args=("--queues", "signalled"), INTERLOCK_LEASE_S="15")
    return "signalled"


def test_it_leaves_an_idle_child_alone(deployment: Deployment, queue: str, fault_report: FaultReport) -> None:
    """F35: also one without a note, which would have killed it under Celery's own handler."""
    pid = _child(deployment, queue)
    _signal_with_note(deployment, queue, pid, "an-attempt-that-has-ended.1")
    os.kill(pid, signal.SIGUSR1)
    assert _child(deployment, queue) == pid
    fault_report(fault="F35", injected="SIGUSR1 to an idle child")


def test_during_a_claim_it_tears_nothing_and_the_body_is_stopped_when_it_has_begun(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F35: MAIN has been told of a pause before the body begins; it says so again until the body is there."""
    victim = victims(FaultRule(place="claim.committed", action="hold"))
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    victim.struck("claim.committed")
    (pid,) = _pool(victim)
    os.kill(pid, signal.SIGSTOP)  # so that the note is there to be seen
    deployment.client.pause(run_id)
    wait_until(lambda: _notes(deployment, victim.queue, pid), DEADLINE_S, "MAIN has sent the signal")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not _notes(deployment, victim.queue, pid), DEADLINE_S, "the child has handled it")
    victim.plan.release()
    step_id = deployment.step_id(run_id)
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F35", injected="SIGUSR1 behind the claim, before the body")
    assert (deployment.step(run_id).losses, deployment.step(run_id).failures) == (0, 0)
    assert _pool(victim) == [pid], "the child did not survive"


@pytest.mark.parametrize("what", ["claim", "completion"])
def test_inside_the_transaction_of_a_claim_or_a_completion_it_tears_nothing(
    deployment: Deployment, queue: str, fault_report: FaultReport, shut: str, what: str
) -> None:
    """F35: the signal names this very attempt, and arrives while its statement waits for the run's lock."""
    pid = _child(deployment, queue)
    with deployment.database.engine.connect() as intruder:
        run_id = deployment.enqueue(held("a", shut, "done", queue=queue), step("b", "echo", "b", queue=queue))
        deployment.begun(run_id)
        if what == "completion":
            locked, attempt = run_id, deployment.step(run_id).task_id
        else:
            # Behind the body that runs, in the same process.
            locked = deployment.enqueue(step("a", "echo", "a", queue=queue))
            attempt = deployment.step(locked).task_id
        intruder.execute(select(_runs.c.id).where(_runs.c.id == locked).with_for_update())
        deployment.ledger.open_gate(shut)
        wait_until(lambda: blocked(deployment), DEADLINE_S, f"the {what} waits for the lock")
        _signal_with_note(deployment, queue, pid, attempt)
        os.kill(pid, signal.SIGUSR1)
        intruder.rollback()
    for each in {run_id, locked}:
        assert deployment.client.wait(each, timeout_s=DEADLINE_S) == "completed"
        assert all(row.attempt == 1 for row in deployment.steps(each).values())
    fault_report(fault="F35", injected=f"SIGUSR1 in the transaction of a {what}")
    assert _child(deployment, queue) == pid, "the child did not survive"


def test_in_the_body_that_it_is_meant_for_it_interrupts(
    deployment: Deployment, queue: str, fault_report: FaultReport, shut: str
) -> None:
    """F35: nobody had asked for it, so the attempt does not count, and the next one comes at once."""
    run_id = deployment.enqueue(held("a", shut, "done", queue=queue))
    step_id = deployment.begun(run_id)["a"]
    (pid,) = set(deployment.ledger.pids(step_id))
    _signal_with_note(deployment, queue, pid, deployment.step(run_id).task_id)
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F35", injected="SIGUSR1 in the body")
    assert deployment.step(run_id).failures == 0
    assert set(deployment.ledger.pids(step_id)) == {pid}, "the child did not survive"


def test_in_the_body_of_another_attempt_it_interrupts_nothing(
    deployment: Deployment, queue: str, fault_report: FaultReport, shut: str
) -> None:
    """F35: meant for the attempt that ran in this process before."""
    run_id = deployment.enqueue(held("a", shut, "done", queue=queue))
    step_id = deployment.begun(run_id)["a"]
    (pid,) = deployment.ledger.pids(step_id)
    _signal_with_note(deployment, queue, pid, "the-attempt-before.1")
    wait_until(lambda: not _notes(deployment, queue, pid), DEADLINE_S, "the child has handled the signal")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F35", injected="SIGUSR1 in the body of the next step")
    assert deployment.ledger.of(step_id) == ["begin", "end"]


def test_in_a_foreign_task_ours_interrupts_nothing_and_celerys_own_does(
    deployment: Deployment, queue: str, fault_report: FaultReport, shut: str
) -> None:
    """F35: the next task in the process is none of ours."""
    pid = _child(deployment, queue)
    foreign = deployment.app.send_task(task("hold"), args=(shut, "foreign"), queue=queue)
    deployment.ledger.wait_for(foreign.id, "begin")
    _signal_with_note(deployment, queue, pid, "the-attempt-before.1")
    wait_until(lambda: not _notes(deployment, queue, pid), DEADLINE_S, "the child has handled the signal")
    deployment.ledger.open_gate(shut)
    assert foreign.get(timeout=DEADLINE_S) == "foreign"
    assert deployment.ledger.of(foreign.id) == ["begin", "end"]
    foreign.forget()
    limited = deployment.app.send_task(task("hold"), args=(uuid4().hex, "x"), queue=queue, soft_time_limit=3)
    deployment.ledger.wait_for(limited.id, "stopped by SoftTimeLimitExceeded")
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        limited.get(timeout=DEADLINE_S)
    limited.forget()
    fault_report(fault="F35", injected="SIGUSR1 in the next, foreign task")


def test_a_storm_of_signals_over_short_steps_tears_none_of_them(
    deployment: Deployment, queue: str, fault_report: FaultReport
) -> None:
    """F35: with notes that name them, at whatever moment: each step is claimed and recorded whole."""
    pid = _child(deployment, queue)
    keys = [f"s{number}" for number in range(STORM_STEPS)]
    run_id = deployment.enqueue(*(step(key, "echo", key, queue=queue) for key in keys))
    ids = [row.id for row in deployment.steps(run_id).values()]
    sent = 0

    def storm() -> bool:
        nonlocal sent
        for step_id in ids[::20]:
            sent += _signal_with_note(deployment, queue, pid, f"{step_id}.1")
        return deployment.client.status(run_id)["status"] == "completed"

    wait_until(storm, 60, "the run completes under the storm")
    fault_report(fault="F35", injected="SIGUSR1 again and again over 100 steps", runs=sent)
    assert _child(deployment, queue) == pid, "the child did not survive"
    assert all(row.failures == row.losses == 0 for row in deployment.steps(run_id).values())


def _child(deployment: Deployment, queue: str) -> int:
    """The process that runs steps: the pool has one."""
    run_id, status = deployment.run(step("a", "echo", 1, queue=queue))
    assert status == "completed"
    step_id = deployment.step_id(run_id)
    return next(int(each["pid"]) for each in deployment.ledger.effects() if each["step_id"] == step_id)


def _pool(victim: Victim) -> list[int]:
    """The processes of a victim's pool."""
    return [pid for pid in victim.worker.child_pids() if pid != engine_pid(victim.worker)]


def _signal_with_note(deployment: Deployment, worker: str, pid: int, task_id: str) -> bool:
    """Do what MAIN's supervisor does; False where a signal is on its way already."""
    if not InterruptNotes(deployment.notes_folder(worker)).leave(pid, task_id):
        return False
    os.kill(pid, signal.SIGUSR1)
    return True


def _notes(deployment: Deployment, worker: str, pid: int) -> bool:
    """Whether there is a note for a process that it has not read."""
    return (deployment.notes_folder(worker) / str(pid)).exists()
