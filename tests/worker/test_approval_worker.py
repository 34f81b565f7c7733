"""Questions that a running body asks people: its attempt ends, a person decides, the body is run again with the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from interlock import Client, RetryPolicy, Step
from interlock.core.errors import AlreadyDecided, CommandRefused, TransitionNotAllowed
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment

APP = "tests.worker.author_tasks"
AGAIN = RetryPolicy(max_attempts=5, initial_delay_s=0.01, jitter=0)


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def asks(key: str, *names: str, options: dict[str, Any] | None = None, **more: Any) -> Step:
    """A step whose body asks these questions."""
    return Step(key, f"{APP}.asks", (list(names), options or {}), **more)


def decision(*, approved: bool = True, by: str = "tester", comment: str | None = None) -> dict[str, Any]:
    """What the body gets to know."""
    return {"approved": approved, "by": by, "comment": comment}


def asked(deployment: Deployment, *steps: Step, key: str = "a", status: str = "waiting_approval") -> str:
    """Enqueue, and wait until the step waits for a person, and the run is what it is to be then."""
    run_id = deployment.enqueue(*steps)
    deployment.wait_for_status(run_id, "waiting_approval", key)
    deployment.wait_for_status(run_id, status)
    return run_id


def test_an_approved_body_is_run_again_with_the_decision(deployment: Deployment) -> None:
    run_id = asked(deployment, asks("a", "ship"))
    deployment.client.approve(run_id, "a", "looks good")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": [decision(comment="looks good")]}
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["attempt 1", "attempt 2"]
    assert deployment.moves(run_id) == ["pending", "running", "waiting_approval", "running", "completed"]
    row = deployment.step(run_id)
    assert (row.failures, row.losses) == (0, 0)
    asking, deciding = deployment.history(run_id, "a")[2:4]
    assert asking.transition_reason == "ship?"
    assert deciding.transitioned_by == "tester"
    assert "looks good" in deciding.transition_reason


def test_a_rejection_is_returned_to_the_body_that_asked(deployment: Deployment) -> None:
    run_id = asked(deployment, asks("a", "ship"), Step("b", task_name("echo"), after="a"))
    deployment.client.reject(run_id, "a", "too dear")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.step(run_id).result == [decision(approved=False, comment="too dear")]


def test_a_rejection_cancels_the_run_where_the_body_said_so(deployment: Deployment) -> None:
    run_id = asked(
        deployment, asks("a", "ship", options={"on_reject": "cancel"}), Step("b", task_name("echo"), after="a")
    )
    deployment.client.reject(run_id, "a", "no")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "cancelled"
    assert {row.status for row in deployment.steps(run_id).values()} == {"cancelled"}
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["attempt 1"]


@pytest.mark.parametrize("default", ["approve", "reject"])
def test_after_the_deadline_the_default_is_decided(deployment: Deployment, default: str) -> None:
    options = {"deadline_s": 0.2, "default": default}
    run_id, status = deployment.run(asks("a", "ship", options=options))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"a": [decision(approved=default == "approve", by="engine")]}


def test_two_questions_of_one_body_are_told_apart_by_name(deployment: Deployment) -> None:
    run_id = asked(deployment, asks("a", "first", "second"))
    deployment.client.approve(run_id, "a", "one")
    deployment.ledger.wait_for(deployment.step_id(run_id), "attempt 2")
    deployment.wait_for_status(run_id, "waiting_approval")
    deployment.client.reject(run_id, "a", "two")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    expected = [decision(comment="one"), decision(approved=False, comment="two")]
    assert deployment.client.result(run_id) == {"a": expected}
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["attempt 1", "attempt 2", "attempt 3"]


def test_only_an_approver_decides_and_only_once(deployment: Deployment) -> None:
    run_id = asked(deployment, asks("a", "ship", options={"approvers": ["ann"]}))
    with pytest.raises(CommandRefused, match="may not decide"):
        deployment.client.approve(run_id, "a")
    with Client(deployment.app, actor="ann") as ann:
        ann.approve(run_id, "a")
        with pytest.raises(AlreadyDecided, match="approved by ann"):
            ann.reject(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": [decision(by="ann")]}


def test_a_run_that_waits_for_a_person_alone_cannot_be_paused(deployment: Deployment) -> None:
    run_id = asked(deployment, asks("a", "ship"))
    with pytest.raises(TransitionNotAllowed, match="approval of a"):
        deployment.client.pause(run_id)
    deployment.client.cancel(run_id)
    assert deployment.client.status(run_id)["status"] == "cancelled"


def test_a_decision_made_while_paused_takes_effect_at_resume(deployment: Deployment, shut: str) -> None:
    """Another step runs, so the run can be paused while the question is open."""
    run_id = asked(deployment, asks("a", "ship"), held("busy", shut), status="executing")
    deployment.begun(run_id, ["busy"])
    deployment.client.pause(run_id)
    deployment.client.approve(run_id, "a", "meanwhile")
    assert deployment.step(run_id).status == "waiting_approval"
    with pytest.raises(AlreadyDecided):
        deployment.client.reject(run_id, "a")
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.step(run_id).result == [decision(comment="meanwhile")]
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["attempt 1", "attempt 2"]


def test_a_deadline_does_not_run_while_paused(deployment: Deployment, shut: str) -> None:
    options = {"deadline_s": 4.0, "default": "reject"}
    run_id = asked(deployment, asks("a", "ship", options=options), held("busy", shut), status="executing")
    deployment.begun(run_id, ["busy"])
    deployment.client.pause(run_id)
    probe = asks("a", "ship", options=options)
    probe_id, _ = deployment.run(probe)  # asked later, with the same deadline: by its end the first one's had passed
    assert deployment.step(probe_id).result == [decision(approved=False, by="engine")]
    assert deployment.step(run_id).status == "waiting_approval"
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    deployment.client.approve(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.step(run_id).result == [decision()]


def test_a_body_that_asks_while_it_is_being_paused_asks_when_it_is_resumed(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(Step("a", f"{APP}.asks_after_a_gate", (shut,)))
    deployment.begun(run_id)
    deployment.client.pause(run_id, mode="drain")
    deployment.ledger.open_gate(shut)
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "its attempt ends")
    assert deployment.step(run_id).status == "paused"
    deployment.client.resume(run_id)
    deployment.wait_for_status(run_id, "waiting_approval")
    deployment.client.approve(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": True}


@pytest.mark.parametrize(("when", "attempts"), [("before", 3), ("after", 3)])
def test_a_lost_worker_neither_loses_a_question_nor_an_answer(deployment: Deployment, when: str, attempts: int) -> None:
    """Killed before it asked, the body asks in its next attempt; killed with the answer in hand, it has it again."""
    run_id = asked(deployment, Step("a", f"{APP}.asks_and_dies", (when,), retry=AGAIN))
    deployment.client.approve(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": ["tester", attempts]}
    assert deployment.moves(run_id).count("waiting_approval") == 1
    assert deployment.step(run_id).losses == 1


def test_a_gate_before_a_task_lets_it_run_when_it_is_approved(deployment: Deployment) -> None:
    """A step's own `approval` comes before its first attempt."""
    run_id = asked(deployment, Step("a", task_name("echo"), ("said",), approval={"prompt": "may it?"}))
    assert deployment.ledger.of(deployment.step_id(run_id)) == []
    deployment.client.approve(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": "said"}


def test_a_gate_without_a_task_needs_no_worker_to_be_decided(deployment: Deployment) -> None:
    run_id = asked(
        deployment, Step("a", approval=True), Step("b", task_name("echo"), ({"$expr": "results.a.by"},), after="a")
    )
    deployment.client.approve(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"b": "tester"}
