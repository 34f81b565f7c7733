"""Pause and resume while bodies really run, several at once, in each mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from interlock import Client, Step
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, BRIEF_LEASE_S, COMMON_SLOTS, DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Crowd:
    """Steps that fill every slot of the workers of a queue, and steps that wait behind them or for them."""

    queue: str | None
    slots: int

    @property
    def running(self) -> list[str]:
        return [f"r{number}" for number in range(self.slots)]

    @property
    def waiting(self) -> list[str]:
        return [f"w{number}" for number in range(2 * self.slots)]


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture(params=[COMMON_SLOTS, pytest.param(20, marks=pytest.mark.long)], ids="{} at once".format)
def crowd(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """As many bodies as really are on their stacks at once."""
    if request.param == COMMON_SLOTS:
        yield Crowd(None, COMMON_SLOTS)
        return
    queue = f"crowd-{uuid4().hex[:8]}"
    worker = deployment.worker(queue, concurrency=request.param, args=("--queues", queue))
    yield Crowd(queue, request.param)
    worker.terminate()


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def test_no_step_starts_after_a_pause_and_resume_finishes_all(deployment: Deployment, crowd: Crowd, shut: str) -> None:
    """Some steps run, twice as many wait in the broker or for others: none of these has begun when the run is resumed."""
    running, waiting, slots = crowd.running, crowd.waiting, crowd.slots
    bodies = [held(key, shut, key, queue=crowd.queue) for key in running]
    queued = [Step(key, task_name("echo"), (key,), queue=crowd.queue) for key in waiting[:slots]]
    dependent = [Step(key, task_name("echo"), (key,), after=running[:2], queue=crowd.queue) for key in waiting[slots:]]
    run_id = deployment.enqueue(*bodies, *queued, *dependent)
    ids = deployment.begun(run_id, running)
    deployment.client.pause(run_id, reason="lunch", mode="drain")
    echoed = deployment.ledger.count("echo")
    deployment.ledger.open_gate(shut)
    for step_id in ids.values():
        deployment.ledger.wait_for(step_id, "end")
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "nothing drains")
    # The slots are free now; the queued messages come, and their claims are refused.
    probe_id, _ = deployment.run(Step("a", task_name("add"), (1, 2), queue=crowd.queue))
    assert deployment.ledger.count("echo") == echoed
    states = {key: row.status for key, row in deployment.steps(run_id).items()}
    assert {states[key] for key in running} == {"paused"}
    assert {states[key] for key in waiting} == {"pending"}
    assert deployment.step(probe_id).status == "completed"

    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert all(deployment.ledger.of(step_id) == ["begin", "end"] for step_id in ids.values())
    assert deployment.client.result(run_id) == {key: key for key in running[2:] + waiting}


def test_interrupt_raises_in_every_body_and_its_cleanup_runs(deployment: Deployment, crowd: Crowd, shut: str) -> None:
    run_id = deployment.enqueue(*(held(key, shut, key, queue=crowd.queue) for key in crowd.running))
    ids = deployment.begun(run_id, crowd.running)
    deployment.client.pause(run_id)
    for step_id in ids.values():
        deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "nothing drains")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    expected = ["begin", "stopped by StepInterrupted", "begin", "end"]
    assert all(deployment.ledger.of(step_id) == expected for step_id in ids.values())
    steps = deployment.steps(run_id)
    assert all(row.failures == row.losses == 0 for row in steps.values()), "an interruption counted against a step"
    assert all(row.attempt == 2 for row in steps.values())


def test_cleaning_up_is_not_interrupted_again(deployment: Deployment, shut: str) -> None:
    """The soft signal goes out once, however long the cleanup takes; heartbeats only repeat what was not heard."""
    with gate(deployment, uuid4().hex) as cleanup:
        run_id = deployment.enqueue(held("a", shut, cleanup, task="slow_cleanup"))
        step_id = deployment.begun(run_id)["a"]
        deployment.client.pause(run_id)
        deployment.ledger.wait_for(step_id, "cleaning")
        lease = deployment.step(run_id).drain_until
        wait_until(
            lambda: (deployment.step(run_id).drain_until - lease).total_seconds() > 2,
            DEADLINE_S,
            "several heartbeats after the signal",
        )
    deployment.ledger.wait_for(step_id, "clean")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "cleaning", "clean", "begin"]


def test_a_result_that_comes_while_paused_is_kept_and_used_at_resume(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(
        held("a", shut, "late", task="finish_anyway"),
        Step("b", task_name("echo"), ({"$expr": "results.a"},), after="a"),
    )
    step_id = deployment.begun(run_id)["a"]
    deployment.client.pause(run_id)
    wait_until(lambda: deployment.step(run_id).late, DEADLINE_S, "the late result is kept")
    assert deployment.moves(run_id) == ["pending", "running", "paused"]
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"b": "late"}
    assert deployment.ledger.of(step_id) == ["begin", "hurried"], "the body ran again although it had finished"


def test_a_pause_whose_broadcast_was_lost_is_found_by_the_heartbeat(deployment: Deployment, shut: str) -> None:
    """F36: a client that has the database alone tells no worker; the next heartbeat does."""
    run_id = deployment.enqueue(held("a", shut))
    step_id = deployment.begun(run_id)["a"]
    with Client(database_url=deployment.database_url, settings=deployment.client.settings) as alone:
        alone.pause(run_id)
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


def test_a_step_resumed_while_its_old_body_drains_is_not_started_beside_it(deployment: Deployment, shut: str) -> None:
    deployment.worker("brief", concurrency=2, args=("--queues", "brief"), **BRIEF)
    run_id = deployment.enqueue(held("a", shut, "once", queue="brief"))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.pause(run_id, mode="drain")
    deployment.client.resume(run_id)
    claimed = deployment.step(run_id).drain_until
    wait_until(
        lambda: (deployment.step(run_id).drain_until - claimed).total_seconds() > BRIEF_LEASE_S,
        DEADLINE_S,
        "a lease's time passes",
    )
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "end"]
    assert deployment.client.result(run_id) == {"a": "once"}


def test_terminate_ends_the_processes_and_resume_starts_at_once(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(*(held(key, shut, task="hard_of_hearing") for key in "abc"))
    ids = deployment.begun(run_id, "abc")
    deployment.client.pause(run_id, mode="terminate")
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "the processes ended")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert all(deployment.ledger.of(step_id) == ["begin", "begin"] for step_id in ids.values())
    assert all(len(set(deployment.ledger.pids(step_id))) == 2 for step_id in ids.values())
    assert all(row.losses == 0 for row in deployment.steps(run_id).values())


def test_killed_for_a_pause_the_step_is_free_before_its_lease_ends(deployment: Deployment, shut: str) -> None:
    """MAIN sees the process end and says so; nobody has to wait for the lease."""
    run_id = deployment.enqueue(held("a", shut, task="hard_of_hearing"))
    deployment.begun(run_id)
    deployment.client.pause(run_id, mode="terminate")
    wait_until(lambda: deployment.step(run_id).drain_token is None, DEADLINE_S, "the attempt is let go")
