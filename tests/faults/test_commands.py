"""Control commands lost, doubled, out of order, or with an engine that dies over them: each is carried out once, or refused.

Two workers serve all tests. Their plan names the commands over which something happens by their ids, so that what comes back
of an earlier test, whose engine died with a message in hand, meets no rule of another.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from redis import Redis

from interlock.core.errors import AlreadyDecided, CommandRefused, CommandTimeout, InterlockError, TransitionNotAllowed
from tests.fault_plans import FaultPlan, FaultRule, injected
from tests.faults.conftest import LONG_LEASE_S
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interlock import Client, Step
    from tests.faults.conftest import FaultReport
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

_LONG_S: Final = 60.0
_KILLED: Final = ("control.received", "command.commit", "control.ack", "control.reply")
# The broadcast first: its rule means the first cancel, whichever it is.
_CANCELS: Final = {"interrupt.broadcast": "", "command.commit": "before", "control.ack": "behind"}

RULES: Final = (
    FaultRule(place="control.reply", action="drop", subject="unanswered", times=2),
    FaultRule(place="command.commit", action="hold", subject="doubled"),
    FaultRule(place="control.received", subject="doubled", times=None),
    *(FaultRule(place=place, action="crash", subject=f"killed-at-{place}") for place in _KILLED),
    *(FaultRule(place=place, action="crash", subject=command_id) for place, command_id in _CANCELS.items()),
    FaultRule(place="control.ack", action="crash", subject="approved"),
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FaultPlan:
    """What the engines obey."""
    return FaultPlan(folder=tmp_path_factory.mktemp("plan"), rules=RULES)


@pytest.fixture(scope="module", autouse=True)
def _workers(deployment: Deployment, plan: FaultPlan) -> Iterator[None]:
    """Two, so that there are two engines, and one of them goes on while the other is started again.

    A lease is longer than that takes: a step whose lease has ended is failed for a moment, and what is failed no cancel changes.
    """
    for name in ("one", "two"):
        deployment.worker(name, INTERLOCK_LEASE_S=LONG_LEASE_S, INTERLOCK_CANCEL_GRACE_S="5", **plan.environment())
    yield
    plan.release()


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test is over."""
    with gate(deployment, uuid4().hex) as name:
        yield name


@pytest.fixture
def remote(deployment: Deployment) -> Iterator[Client]:
    """A client that has nothing but the control queue."""
    with deployment.remote_client() as client:
        yield client


def _insist(call: Callable[[], Any]) -> Any:
    """Do what a client is told to do that gets no answer: repeat the command with its id."""
    deadline = time.monotonic() + _LONG_S
    while True:
        try:
            return call()
        except CommandTimeout:
            if time.monotonic() > deadline:
                raise


def _begun(deployment: Deployment, shut: str) -> str:
    """A run whose one body waits at the gate."""
    run_id = deployment.enqueue(held("a", shut))
    deployment.begun(run_id)
    return run_id


def _run_moves(deployment: Deployment, run_id: str) -> list[str]:
    return [row.to_state for row in deployment.history(run_id) if row.step_key is None]


def _in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def act() -> None:
        try:
            outcome.append(call())
        except InterlockError as error:
            outcome.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    return thread, outcome


def test_a_command_that_is_lost_once_is_sent_again_by_the_client_itself(
    deployment: Deployment, remote: Client, shut: str, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F12: lost on the way."""
    run_id = _begun(deployment, shut)
    began = time.monotonic()
    with injected(tmp_path, FaultRule(place="control.send", action="drop", subject="pause")) as plan:
        _insist(lambda: remote.pause(run_id, mode="drain", request_id="dropped"))
        assert plan.hits("control.send") >= 2
    recovery_s = time.monotonic() - began
    assert _run_moves(deployment, run_id)[-1] == "paused"
    deployment.client.cancel(run_id)
    fault_report(fault="F12", injected="a control command dropped on its way", recovery_s=recovery_s)


def test_a_client_that_gets_no_answer_is_told_so_and_repeats_the_command_with_its_id(
    deployment: Deployment, remote: Client, shut: str, plan: FaultPlan, fault_report: FaultReport
) -> None:
    """F12: the answers are lost, so the client sees `CommandTimeout`, with the command carried out; repeated, it acts once."""
    run_id = _begun(deployment, shut)
    with pytest.raises(CommandTimeout) as silence:
        remote.pause(run_id, reason="tea", mode="drain", request_id="unanswered")
    wait_until(lambda: plan.hits("control.reply", "unanswered") == 2, DEADLINE_S, "both answers are dropped")
    assert _run_moves(deployment, run_id)[-1] == "paused"
    _insist(lambda: remote.resume(run_id))
    _insist(lambda: remote.pause(run_id, reason="other", mode="drain", request_id=silence.value.request_id))
    assert _run_moves(deployment, run_id)[-2:] == ["paused", "executing"], "the answer was that of the first"
    deployment.client.cancel(run_id)
    fault_report(fault="F12", injected="the answers to a control command dropped")


def test_a_command_that_comes_twice_at_once_to_two_engines_is_carried_out_by_one(
    deployment: Deployment, remote: Client, shut: str, plan: FaultPlan, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F12: the second engine waits for the first one's transaction, and gives its outcome."""
    run_id = _begun(deployment, shut)
    with injected(tmp_path, FaultRule(place="control.send", action="duplicate", subject="pause")):
        thread, outcome = _in_thread(lambda: _insist(lambda: remote.pause(run_id, mode="drain", request_id="doubled")))
        wait_until(lambda: plan.hits("control.received", "doubled") >= 2, DEADLINE_S, "both engines have it")
        plan.release()
        thread.join(_LONG_S)
    assert outcome == [None]
    assert _run_moves(deployment, run_id).count("paused") == 1
    _insist(lambda: remote.resume(run_id))
    wait_until(lambda: _unsettled(deployment) == 0, DEADLINE_S, "both messages are settled")
    assert _run_moves(deployment, run_id)[-2:] == ["paused", "executing"]
    deployment.client.cancel(run_id)
    fault_report(fault="F12", injected="a control command delivered to two engines at once")


def _unsettled(deployment: Deployment) -> int:
    """Messages in the control queue, and with engines that have not acknowledged them."""
    with Redis.from_url(deployment.broker.url(0)) as redis:
        return int(redis.llen("interlock.control") + redis.hlen("interlock.control.unacked"))


def test_commands_that_overtake_each_other_are_judged_in_the_order_in_which_they_arrive(
    deployment: Deployment, remote: Client, shut: str, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F12: a pause that arrives behind the cancel that was decided later; a resume that arrives before its pause."""
    run_id = _begun(deployment, shut)
    with injected(tmp_path, FaultRule(place="control.send", action="hold", subject="pause")) as plan:
        thread, outcome = _in_thread(lambda: _insist(lambda: remote.pause(run_id, request_id="overtaken")))
        wait_until(lambda: plan.hits("control.send"), DEADLINE_S, "the pause is on its way")
        deployment.client.cancel(run_id)
        plan.release()
        thread.join(_LONG_S)
    (refused,) = outcome
    assert isinstance(refused, TransitionNotAllowed)
    assert (refused.from_state, refused.to_state) == ("cancelled", "paused")
    assert _run_moves(deployment, run_id)[-1] == "cancelled"

    other = _begun(deployment, shut)
    with pytest.raises(TransitionNotAllowed):
        _insist(lambda: remote.resume(other, request_id="too-early"))
    _insist(lambda: remote.pause(other, mode="drain", request_id="late"))
    assert _run_moves(deployment, other)[-1] == "paused"
    _insist(lambda: remote.resume(other, request_id="in-time"))
    assert _run_moves(deployment, other)[-1] == "executing"
    deployment.client.cancel(other)
    fault_report(fault="F12", injected="control commands that overtake each other", runs=2)


@pytest.mark.parametrize("place", _KILLED)
def test_an_engine_that_dies_over_a_command_costs_no_command_and_does_none_twice(
    deployment: Deployment, remote: Client, shut: str, plan: FaultPlan, fault_report: FaultReport, place: str
) -> None:
    """F12: kill -9 with the command in hand, before and behind its commit, before and behind its acknowledgement."""
    run_id = _begun(deployment, shut)
    command_id = f"killed-at-{place}"
    began = time.monotonic()
    _insist(lambda: remote.pause(run_id, mode="drain", request_id=command_id))
    recovery_s = time.monotonic() - began
    assert plan.hits(place, command_id) >= 1
    _insist(lambda: remote.resume(run_id, request_id=f"after-{place}"))
    assert _run_moves(deployment, run_id) == ["draft", "planning", "executing", "paused", "executing"]
    deployment.client.cancel(run_id)
    fault_report(fault="F12", injected=f"kill -9 of the engine at {place}", recovery_s=recovery_s)


# a cascade


def _wide(shut: str) -> list[Step]:
    """A thousand steps: two that are held, and the others in a queue that nobody consumes."""
    waiting = [step(f"s{number}", "echo", number, queue="nobody") for number in range(998)]
    return [held("a", shut), held("b", shut), *waiting]


@pytest.mark.parametrize("place", _CANCELS)
def test_an_engine_killed_in_the_middle_of_a_cancel_of_a_thousand_steps_cancels_all_or_none(
    deployment: Deployment, remote: Client, shut: str, plan: FaultPlan, fault_report: FaultReport, place: str
) -> None:
    """F23: before the commit nothing is cancelled; behind it everything is, and the bodies are found by the heartbeat."""
    rule = _CANCELS[place]
    command_id = rule or "untold"
    run_id = deployment.enqueue(*_wide(shut))
    ids = deployment.begun(run_id, ["a", "b"])
    began = time.monotonic()
    thread, outcome = _in_thread(lambda: _insist(lambda: remote.cancel(run_id, reason="enough", request_id=command_id)))
    wait_until(lambda: plan.hits(place, rule), DEADLINE_S, "the engine dies")
    states = Counter(row.status for row in deployment.steps(run_id).values())
    assert states in ({"cancelled": 1000}, {"running": 2, "pending": 998})
    assert place == "command.commit" or states == {"cancelled": 1000}
    thread.join(_LONG_S)
    assert outcome == [None]
    states = Counter(row.status for row in deployment.steps(run_id).values())
    assert states == {"cancelled": 1000}, [deployment.history(run_id, key) for key in ids]
    assert _run_moves(deployment, run_id).count("cancelled") == 1
    for step_id in ids.values():
        deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    recovery_s = time.monotonic() - began
    fault_report(fault="F23", injected=f"kill -9 at {place} of a cancel of 1,000 steps", recovery_s=recovery_s)


# decisions


def _plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"name": "question", "task_description": "Ask.", "steps": list(steps)}


def test_an_approval_twice_and_by_two_people_is_one_decision(
    deployment: Deployment, remote: Client, plan: FaultPlan, fault_report: FaultReport
) -> None:
    """F22: the engine dies with the first one's decision committed and unanswered; it is repeated, and another comes second."""
    run_id = _insist(lambda: remote.enqueue(_plan({"key": "gate", "approval": {}}), request_id="question"))
    began = time.monotonic()
    _insist(lambda: remote.approve(run_id, "gate", "fine", request_id="approved"))
    recovery_s = time.monotonic() - began
    assert plan.hits("control.ack", "approved") >= 1
    _insist(lambda: remote.approve(run_id, "gate", "fine", request_id="approved"))
    with deployment.remote_client(actor="bob") as bob:
        for number, verb in enumerate((bob.approve, bob.reject)):
            with pytest.raises(AlreadyDecided) as second:
                _insist(lambda verb=verb, number=number: verb(run_id, "gate", request_id=f"second-{number}"))
            assert (second.value.decided_by, second.value.decision) == ("remote", "approved")
    assert deployment.moves(run_id, "gate") == ["pending", "running", "waiting_approval", "running", "completed"]
    fault_report(
        fault="F22", injected="kill -9 behind the commit of an approval; a second person", recovery_s=recovery_s
    )


def test_a_decision_that_comes_behind_its_deadline_or_the_runs_end_is_told_so(
    deployment: Deployment, remote: Client, fault_report: FaultReport
) -> None:
    """F22: late."""
    question = {"key": "gate", "approval": {"deadline_s": 0.1, "default": "approve"}}
    overdue = _insist(lambda: remote.enqueue(_plan(question), request_id="overdue"))
    assert deployment.client.wait(overdue, timeout_s=DEADLINE_S) == "completed"
    with pytest.raises(AlreadyDecided) as late:
        _insist(lambda: remote.reject(overdue, "gate", request_id="overdue-reject"))
    assert late.value.decided_by == "engine"
    ended = _insist(lambda: remote.enqueue(_plan({"key": "gate", "approval": {}}), request_id="ended"))
    deployment.client.cancel(ended)
    with pytest.raises(CommandRefused, match="was closed"):
        _insist(lambda: remote.approve(ended, "gate", request_id="ended-approve"))
    assert deployment.moves(ended, "gate")[-1] == "cancelled"
    fault_report(fault="F22", injected="decisions behind their deadline, and behind the run's end", runs=2)
