"""Messages lost, doubled or late, and the signal that arrives at the wrong moment: the database decides, and bodies run once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis

from interlock import Step
from interlock.worker.interruption import Notes
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    """One slot, so that the next task runs in the same process; what is lost is looked for after a second."""
    deployment.worker("messages", concurrency=1, INTERLOCK_REDISPATCH_S="1")


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def test_steps_whose_messages_the_broker_has_lost_are_sent_again(deployment: Deployment) -> None:
    """F10: everything is flushed while the steps are queued; their attempts keep their ids."""
    name = f"flushed-{uuid4().hex[:8]}"
    run_id = deployment.enqueue(*(Step(f"s{number}", task_name("echo"), (number,), queue=name) for number in range(10)))
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen(name) == 10, DEADLINE_S, "all messages are queued")
        redis.flushdb()
    successor = deployment.worker(name, concurrency=1, args=("--queues", name), INTERLOCK_REDISPATCH_S="1")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    for row in deployment.steps(run_id).values():
        assert deployment.ledger.of(row.id) == ["echo"]
        assert (row.attempt, row.losses) == (1, 0)
    successor.terminate()


def test_a_message_that_comes_twice_at_once_runs_the_body_once(deployment: Deployment, shut: str) -> None:
    """F9: two workers get the same messages at the same moment; one claim of each wins."""
    name = f"twice-{uuid4().hex[:8]}"
    keys = [f"s{number}" for number in range(10)]
    run_id = deployment.enqueue(*(held(key, shut, key, queue=name) for key in keys))
    deployment.ledger.open_gate(shut)
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen(name) == len(keys), DEADLINE_S, "all messages are queued")
        for message in redis.lrange(name, 0, -1):
            redis.lpush(name, message, message)
    pair = [deployment.worker(f"{name}-{number}", concurrency=2, args=("--queues", name)) for number in range(2)]
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen(name) == 0, DEADLINE_S, "all messages are taken")
    for each in pair:
        each.terminate()
    assert all(deployment.ledger.of(row.id) == ["begin", "end"] for row in deployment.steps(run_id).values())
    refused = sum(each.output.count("is not run:") for each in pair)
    assert refused >= 2 * len(keys)


def test_a_message_of_a_step_that_has_completed_is_a_no_op(deployment: Deployment) -> None:
    run_id, _ = deployment.run(Step("a", task_name("add"), (1, 2)))
    row, seq = deployment.step(run_id), deployment.client.status(run_id)["seq"]
    _send(deployment.app, row, run_id, "add", (1, 2))
    deployment.run(Step("a", task_name("add"), (1, 2)))  # one slot: behind the other message
    assert deployment.ledger.of(row.id) == ["add"]
    assert deployment.client.status(run_id)["seq"] == seq


def test_a_message_of_a_run_that_never_was_runs_nothing(deployment: Deployment) -> None:
    header = {"run_id": str(uuid4()), "step_id": str(uuid4()), "session_id": "default", "key": "a", "attempt": 1}
    forged = uuid4().hex
    deployment.app.send_task(task_name("echo"), task_id=forged, headers={"interlock": header}, ignore_result=True)
    deployment.app.send_task(task_name("echo"), headers={"interlock": {"run_id": 7}}, task_id=uuid4().hex)
    deployment.run(Step("a", task_name("add"), (1, 2)))
    assert deployment.ledger.of(header["step_id"]) == []


class TestSoftSignal:
    """F35: SIGUSR1 that Interlock sent, arriving where it must do no harm. The note is what MAIN leaves beside it."""

    def test_it_interrupts_the_body_that_it_is_meant_for(self, deployment: Deployment, shut: str) -> None:
        run_id = deployment.enqueue(held("a", shut, task="based_hold"))
        step_id = deployment.begun(run_id)["a"]
        (pid,) = set(deployment.ledger.pids(step_id))
        _signal_with_note(deployment, pid, deployment.step(run_id).task_id)
        deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
        # Nobody had asked for it: the attempt does not count, and the next one comes at once.
        deployment.ledger.open_gate(shut)
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert deployment.step(run_id).failures == 0
        assert set(deployment.ledger.pids(step_id)) == {pid}, "the child did not survive"

    def test_it_leaves_an_idle_child_alone(self, deployment: Deployment) -> None:
        pid = _child(deployment)
        _signal_with_note(deployment, pid, "an-attempt-that-has-ended.1")
        os.kill(pid, signal.SIGUSR1)  # and one without a note, which would have killed it under Celery's own handler
        assert _child(deployment) == pid

    def test_it_leaves_the_next_step_alone(self, deployment: Deployment, shut: str) -> None:
        run_id = deployment.enqueue(held("a", shut, "mine"))
        step_id = deployment.begun(run_id)["a"]
        (pid,) = set(deployment.ledger.pids(step_id))
        _signal_with_note(deployment, pid, "the-attempt-before.1")
        deployment.ledger.open_gate(shut)
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert deployment.ledger.of(step_id) == ["begin", "end"]

    def test_it_leaves_a_foreign_task_alone(self, deployment: Deployment, shut: str) -> None:
        answer = deployment.app.send_task(task_name("hold"), args=(shut, "foreign"))
        deployment.ledger.wait_for(answer.id, "begin")
        (pid,) = deployment.ledger.pids(answer.id)
        _signal_with_note(deployment, pid, "the-attempt-before.1")
        deployment.ledger.open_gate(shut)
        assert answer.get(timeout=DEADLINE_S) == "foreign"
        assert deployment.ledger.of(answer.id) == ["begin", "end"]
        answer.forget()

    def test_celerys_own_soft_signal_still_reaches_a_foreign_task(self, deployment: Deployment, shut: str) -> None:
        deployment.run(Step("a", task_name("add"), (1, 2)))  # the handler is ours by now
        answer = deployment.app.send_task(task_name("hold"), args=(shut, "x"), soft_time_limit=0.5)
        deployment.ledger.wait_for(answer.id, "stopped by SoftTimeLimitExceeded")
        deployment.ledger.open_gate(shut)
        with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
            answer.get(timeout=DEADLINE_S)
        answer.forget()

    def test_it_does_not_tear_a_claim_or_a_report(self, deployment: Deployment) -> None:
        """A storm of signals over a hundred short steps, with notes that name them: each step is claimed and recorded whole."""
        keys = [f"s{number}" for number in range(100)]
        pid = _child(deployment)
        run_id = deployment.enqueue(*(Step(key, task_name("echo"), (key,)) for key in keys))
        ids = [row.id for row in deployment.steps(run_id).values()]

        def storm() -> bool:
            for step_id in ids[::20]:
                _signal_with_note(deployment, pid, f"{step_id}.1")
            return deployment.client.status(run_id)["status"] == "completed"

        wait_until(storm, 60, "the run completes under the storm")
        assert _child(deployment) == pid, "the child did not survive"
        assert all(row.failures == row.losses == 0 for row in deployment.steps(run_id).values())


def _child(deployment: Deployment) -> int:
    """The process that runs steps: the pool has one."""
    run_id, _ = deployment.run(Step("a", task_name("echo")))
    (pid,) = deployment.ledger.pids(deployment.step_id(run_id))
    return pid


def _signal_with_note(deployment: Deployment, pid: int, task_id: str) -> None:
    """Do what MAIN's supervisor does."""
    if Notes(deployment.notes_folder("messages")).leave(pid, task_id):
        os.kill(pid, signal.SIGUSR1)


def _send(app: Celery, row: Any, run_id: str, name: str, args: tuple[Any, ...]) -> None:
    """Send the message of an attempt again, as a broker that redelivers does."""
    header = {
        "run_id": run_id,
        "step_id": row.id,
        "session_id": "default",
        "key": row.key,
        "attempt": row.attempt,
    }
    app.send_task(task_name(name), args=args, task_id=row.task_id, headers={"interlock": header}, ignore_result=True)
