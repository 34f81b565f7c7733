"""A process on its way from step to step is killed, its worker too, or shut down: what it held is done again, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from interlock import Workflow
from interlock.core.verify import Verification, verify
from tests.fault_plans import FaultRule
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from interlock import Step
    from tests.faults.conftest import FaultReport, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults


def _enqueue(deployment: Deployment, *steps: Step) -> str:
    return deployment.client.enqueue(Workflow("run-through", "Show that nothing is lost.", steps, run_through=True))


def _chain(queue: str, length: int = 4) -> list[Step]:
    return [step(f"s{n}", "echo", n, queue=queue, after=[f"s{n - 1}"] if n else []) for n in range(length)]


def _ends_well(deployment: Deployment, run_id: str) -> None:
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert list(verify(deployment.database, Verification(), run_id)) == []


def _carried(deployment: Deployment, run_id: str) -> list[str]:
    rows = [row for row in deployment.history(run_id) if row.transition_reason == "claimed"]
    return [row.step_key for row in rows if (row.meta or {}).get("carrier")]


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        ("runthrough.commit", "s1"),  # the result of s1 is not recorded: its body is run again
        ("complete.sent", "s2"),  # nobody reads the answer, and it is committed all the same
        ("complete.committed", "s2"),  # s1 has completed, and s2 is claimed by a process that is gone
        ("runthrough.committed", "s2"),
    ],
)
def test_a_child_killed_at_the_commit_costs_one_attempt(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str, lost: str
) -> None:
    """MAIN says at once which message's process is gone; nobody waits for a lease."""
    victim = victims(FaultRule(place=place, action="crash", skip=1))
    run_id = _enqueue(deployment, *_chain(victim.queue))
    struck = victim.struck(place, 2)
    _ends_well(deployment, run_id)
    fault_report(fault="F4", injected=f"kill -9 at {place}, run-through", recovery_s=time.monotonic() - struck)
    for key, row in deployment.steps(run_id).items():
        assert (row.result, row.losses) == (int(key[1:]), int(key == lost))
        assert deployment.moves(run_id, key).count("failed") == int(key == lost)


def test_a_child_killed_in_a_carried_body_loses_that_step_and_not_the_message_s_own(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    victim = victims()
    run_id = _enqueue(
        deployment,
        step("a", "echo", 1, queue=victim.queue),
        held("b", shut, 2, queue=victim.queue, after=["a"]),
        step("c", "echo", 3, queue=victim.queue, after=["b"]),
    )
    step_id = deployment.begun(run_id, ["b"])["b"]
    (pid,) = deployment.ledger.pids(step_id)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    deployment.ledger.open_gate(shut)
    _ends_well(deployment, run_id)
    fault_report(fault="F3", injected="kill -9 of a child, run-through", recovery_s=time.monotonic() - killed)
    steps = deployment.steps(run_id)
    assert [steps[key].losses for key in "abc"] == [0, 1, 0]
    assert deployment.moves(run_id, "a") == ["pending", "running", "completed"]
    assert deployment.ledger.of(step_id) == ["begin", "begin", "end"]
    assert _carried(deployment, run_id) == ["b", "c"]


def test_a_killed_main_costs_the_carried_step_one_attempt(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """Another worker's sweeper finds it when its lease ends, and sends it and the rest by the broker."""
    victim = victims(INTERLOCK_LEASE_S="5")
    run_id = _enqueue(
        deployment,
        step("a", "echo", 1, queue=victim.queue),
        held("b", shut, 2, queue=victim.queue, after=["a"]),
        step("c", "echo", 3, queue=victim.queue, after=["b"]),
    )
    step_id = deployment.begun(run_id, ["b"])["b"]
    victims(args=("--queues", victim.queue))
    assert deployment.step(run_id, "b").attempt == 1, "its lease was renewed meanwhile"
    victim.worker.kill()
    killed = time.monotonic()
    deployment.ledger.open_gate(shut)
    _ends_well(deployment, run_id)
    fault_report(fault="F6", injected="kill -9 of MAIN, run-through", recovery_s=time.monotonic() - killed)
    assert [row.losses for row in deployment.steps(run_id).values()] == [0, 1, 0]
    assert deployment.ledger.of(step_id) == ["begin", "begin", "end"]


def test_a_warm_shutdown_lets_the_carried_body_finish_and_goes_on_to_none(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    victim = victims()
    run_id = _enqueue(
        deployment,
        step("a", "echo", 1, queue=victim.queue),
        held("b", shut, 2, queue=victim.queue, after=["a"]),
        step("c", "echo", 3, queue=victim.queue, after=["b"]),
    )
    deployment.begun(run_id, ["b"])
    os.kill(victim.worker.pid, signal.SIGTERM)
    began = time.monotonic()
    wait_until(lambda: "Warm shutdown" in victim.worker.output, DEADLINE_S, "the shutdown begins")
    wait_until((deployment.notes_folder(victim.queue) / "closing").exists, DEADLINE_S, "the children are told")
    deployment.ledger.open_gate(shut)
    wait_until(lambda: not victim.worker.running, DEADLINE_S, "the worker has ended")
    assert [row.status for row in deployment.steps(run_id).values()] == ["completed", "completed", "pending"]
    victims(args=("--queues", victim.queue))
    _ends_well(deployment, run_id)
    fault_report(fault="F7", injected="SIGTERM, run-through", recovery_s=time.monotonic() - began)
    assert _carried(deployment, run_id) == ["b"]
    assert [row.losses for row in deployment.steps(run_id).values()] == [0, 0, 0]


def test_a_cold_shutdown_hands_the_carried_step_on_and_counts_nothing(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    victim = victims()
    run_id = _enqueue(
        deployment,
        step("a", "echo", 1, queue=victim.queue),
        held("b", shut, 2, queue=victim.queue, after=["a"]),
        step("c", "echo", 3, queue=victim.queue, after=["b"]),
    )
    deployment.begun(run_id, ["b"])
    os.kill(victim.worker.pid, signal.SIGQUIT)
    began = time.monotonic()
    wait_until(lambda: not victim.worker.running, DEADLINE_S, "the worker has ended")
    wait_until(
        lambda: "failed" in deployment.moves(run_id, "b"), DEADLINE_S, "the step is handed on before its lease ends"
    )
    deployment.ledger.open_gate(shut)
    victims(args=("--queues", victim.queue))
    _ends_well(deployment, run_id)
    fault_report(fault="F7", injected="SIGQUIT, run-through", recovery_s=time.monotonic() - began)
    row = deployment.step(run_id, "b")
    assert (row.attempt, row.failures, row.losses) == (2, 0, 0)
    reasons = [each.transition_reason for each in deployment.history(run_id, "b") if each.to_state == "failed"]
    assert reasons == ["worker shutdown"]


def test_the_message_delivered_again_runs_nothing_again(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F9: a duplicate of the carrier finds its own step completed, whatever its process is doing."""
    victim = victims(FaultRule(place="dispatch.publish", action="duplicate", times=None), concurrency=2)
    first = step("first", "echo", 0, queue=victim.queue)
    fan = [
        step(f"s{n}", "echo", n, queue=victim.queue, after=["first"]) for n in range(2)
    ]  # sent by the victim, twice each
    rest = [held(f"t{n}", shut, n, queue=victim.queue, after=[f"s{n}"]) for n in range(2)]
    run_id = _enqueue(deployment, first, *fan, *rest)
    deployment.begun(run_id, ["t0", "t1"])
    deployment.ledger.open_gate(shut)
    _ends_well(deployment, run_id)
    fault_report(fault="F9", injected="every message twice, run-through", runs=2)
    assert sorted(_carried(deployment, run_id)) == ["t0", "t1"]
    for n in range(2):
        assert deployment.ledger.of(deployment.step_id(run_id, f"t{n}")) == ["begin", "end"]


def test_an_answer_that_was_lost_is_asked_for_again(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F13: both are committed, the child sees a broken connection, repeats, and goes on with what it holds."""
    victim = victims(FaultRule(place="runthrough.committed", action="lose_answer", times=2))
    run_id = _enqueue(deployment, *_chain(victim.queue))
    _ends_well(deployment, run_id)
    fault_report(fault="F13", injected="a lost answer, run-through", runs=2)
    assert _carried(deployment, run_id) == ["s1", "s2", "s3"]
    assert [row.attempt for row in deployment.steps(run_id).values()] == [1, 1, 1, 1]
