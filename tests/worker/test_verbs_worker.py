"""Every verb with a real worker and PostgreSQL, by each door: client, control queue, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import pytest

from interlock import Step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name
from tests.worker.doors import DOORS, ClientDoor, CommandLine, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

Door: TypeAlias = ClientDoor | CommandLine

APP = "tests.worker.author_tasks"


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture(params=DOORS)
def door(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Door]:
    """One way in."""
    if request.param == "command line":
        yield CommandLine(deployment)
    elif request.param == "client":
        yield ClientDoor(deployment.client)
    else:
        with deployment.remote_client(actor="tester") as client:
            yield ClientDoor(client)


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def ends(deployment: Deployment, run_id: str, status: str = "completed") -> None:
    """Wait until the run has ended so."""
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == status


def last_move(deployment: Deployment, run_id: str, key: str | None = None) -> tuple[str, str, str]:
    """State, actor and reason of the last move of a step, or of anything."""
    row = deployment.history(run_id, key)[-1]
    return row.to_state, row.transitioned_by, row.transition_reason


# --- pause, resume, cancel


@pytest.mark.parametrize("mode", ["interrupt", "drain", "terminate"])
def test_a_run_is_paused_in_each_mode_and_resumed(deployment: Deployment, door: Door, shut: str, mode: str) -> None:
    run_id = deployment.enqueue(held("a", shut, "done"), Step("b", task_name("echo"), ("said",), after="a"))
    step_id = deployment.begun(run_id)["a"]
    door("pause", run_id, reason="lunch", mode=mode)
    assert last_move(deployment, run_id, "a") == ("paused", "tester", "lunch")
    assert deployment.client.status(run_id)["pause"]["mode"] == mode
    if mode == "drain":
        deployment.ledger.open_gate(shut)
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "the body has ended")
    assert deployment.step(run_id).status == "paused"
    door("resume", run_id, reason="back")
    deployment.ledger.open_gate(shut)
    ends(deployment, run_id)
    bodies = {
        "interrupt": ["begin", "stopped by StepInterrupted", "begin", "end"],
        "drain": ["begin", "end"],
        "terminate": ["begin", "begin", "end"],
    }
    assert deployment.ledger.of(step_id) == bodies[mode]
    assert deployment.client.result(run_id) == {"b": "said"}


def test_a_step_paused_by_itself_stays_so_until_it_is_resumed_by_itself(
    deployment: Deployment,
    door: Door,
    shut: str,
) -> None:
    run_id = deployment.enqueue(held("a", shut, "a"), held("b", shut, "b"))
    deployment.begun(run_id, ["a", "b"])
    door("pause", run_id, "a", reason="look at it")
    assert [row.status for row in deployment.steps(run_id).values()] == ["paused", "running"]
    assert deployment.client.status(run_id)["status"] == "executing"
    door("pause", run_id)
    door("resume", run_id)
    assert deployment.step(run_id).status == "paused", "a resume of the workflow does not resume what a person paused"
    deployment.ledger.open_gate(shut)
    deployment.wait_for_status(run_id, "completed", "b")
    assert deployment.client.status(run_id)["status"] == "executing"
    door("resume", run_id, "a")
    ends(deployment, run_id)
    assert deployment.client.result(run_id) == {"a": "a", "b": "b"}


def test_a_run_is_cancelled_and_cancelling_again_changes_nothing(deployment: Deployment, door: Door, shut: str) -> None:
    run_id = deployment.enqueue(held("a", shut), Step("b", task_name("echo"), after="a"))
    step_id = deployment.begun(run_id)["a"]
    door("cancel", run_id, reason="superseded")
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    assert last_move(deployment, run_id) == ("cancelled", "tester", "superseded")
    before = len(deployment.history(run_id))
    door("cancel", run_id)
    assert len(deployment.history(run_id)) == before
    with pytest.raises(Refused, match="cancelled") as refusal:
        door("resume", run_id)
    assert refusal.value.error == "TransitionNotAllowed"


# --- approve, reject


def _waiting(deployment: Deployment, **approval: Any) -> str:
    run_id = deployment.enqueue(
        Step("gate", approval={"prompt": "go on?", **approval}),
        Step("b", task_name("echo"), ({"$expr": "results.gate.approved"},), after="gate"),
    )
    deployment.wait_for_status(run_id, "waiting_approval")
    return run_id


def test_a_gate_is_approved_once(deployment: Deployment, door: Door) -> None:
    run_id = _waiting(deployment)
    door("approve", run_id, "gate", comment="checked")
    ends(deployment, run_id)
    decided = deployment.step(run_id, "gate").result
    assert decided == {"decision": "approved", "approved": True, "by": "tester", "comment": "checked"}
    with pytest.raises(Refused) as refusal:
        door("approve", run_id, "gate")
    assert refusal.value.error == "AlreadyDecided"


@pytest.mark.parametrize(("on_reject", "status"), [("cancel", "cancelled"), ("continue", "completed")])
def test_a_gate_is_rejected(deployment: Deployment, door: Door, on_reject: str, status: str) -> None:
    run_id = _waiting(deployment, on_reject=on_reject)
    door("reject", run_id, "gate", comment="wrong month")
    ends(deployment, run_id, status)
    if status == "completed":
        assert deployment.client.result(run_id) == {"b": False}
        assert deployment.step(run_id, "gate").result["comment"] == "wrong month"


# --- retry, settle, rerun


def _failed_beside_a_running_one(deployment: Deployment, shut: str) -> str:
    run_id = deployment.enqueue(
        Step("a", f"{APP}.fails_until", (2,), on_failure="continue"),
        held("busy", shut, "kept"),
        Step("last", task_name("echo"), ({"$expr": "results.a"},), after=["a", "busy"], trigger="all_settled"),
    )
    deployment.begun(run_id, ["busy"])
    deployment.wait_for_status(run_id, "failed", "a")
    return run_id


def test_a_failed_step_of_a_live_run_is_retried(deployment: Deployment, door: Door, shut: str) -> None:
    run_id = _failed_beside_a_running_one(deployment, shut)
    door("retry", run_id, "a", reason="fixed")
    deployment.wait_for_status(run_id, "completed", "a")
    retried = deployment.history(run_id, "a")[3]
    assert (retried.to_state, retried.transitioned_by, retried.transition_reason) == ("running", "tester", "fixed")
    deployment.ledger.open_gate(shut)
    ends(deployment, run_id)
    assert deployment.client.result(run_id) == {"last": 2}


def test_a_failed_step_of_a_live_run_is_settled_by_hand(deployment: Deployment, door: Door, shut: str) -> None:
    run_id = _failed_beside_a_running_one(deployment, shut)
    door("settle", run_id, "a", '{"paid": true}', reason="paid by transfer")
    assert last_move(deployment, run_id, "a") == ("completed", "tester", "paid by transfer")
    deployment.ledger.open_gate(shut)
    ends(deployment, run_id)
    assert deployment.client.result(run_id) == {"last": {"paid": True}}


@pytest.mark.parametrize("verb", [("retry", "a"), ("settle", "a", "1")], ids=lambda words: words[0])
def test_of_a_run_that_has_ended_the_answer_is_rerun(deployment: Deployment, door: Door, verb: tuple[str, ...]) -> None:
    run_id, status = deployment.run(Step("a", task_name("fail"), ("no",)))
    assert status == "failed"
    name, *words = verb
    with pytest.raises(Refused, match=f"interlock rerun {run_id}"):
        door(name, run_id, *words, reason="late")


def test_a_rerun_reuses_what_had_completed(deployment: Deployment, door: Door, shut: str) -> None:
    run_id, status = deployment.run(
        Step("first", task_name("echo"), ("kept",)),
        Step("second", f"{APP}.needs_open_gate", (shut,), after="first"),
        Step("third", task_name("echo"), ({"$expr": "[results.first, results.second]"},), after="second"),
    )
    assert status == "failed"
    deployment.ledger.open_gate(shut)
    again = door("rerun", run_id, reason="mended")["run_id"]
    assert again != run_id
    ends(deployment, again)
    assert deployment.client.result(again) == {"third": ["kept", "mended"]}
    assert deployment.ledger.of(deployment.step_id(again, "first")) == [], "it was done again"
    assert deployment.client.status(run_id)["status"] == "failed"
    assert f"run again after {run_id}" in deployment.history(again)[0].transition_reason


# --- looking


def test_each_look_gives_the_same_by_every_door(deployment: Deployment, door: Door) -> None:
    name = f"looked-at-{uuid4().hex}"
    run_id, _ = deployment.run(Step("a", task_name("add"), (1, 2)), name=name)
    assert door("result", run_id) == {"a": 3}
    assert door("result", run_id, "a") == 3
    status = door("status", run_id)
    assert (status["status"], status["counts"]) == ("completed", {"completed": 1})
    assert status["steps"][0]["attempt"] == 1
    assert [run["run_id"] for run in door("list", name=name, status="completed")] == [run_id]
    assert door("list", name=name, status="failed") == []
    changes = door("history", run_id)
    assert [change["seq"] for change in changes] == list(range(1, status["seq"] + 1))
    assert changes[-1]["to_state"] == "completed"


def test_explain_says_what_a_run_waits_for(deployment: Deployment, door: Door) -> None:
    run_id = _waiting(deployment)
    told = str(door("explain", run_id))
    assert "gate" in told
    assert "interlock approve" in told
    deployment.client.cancel(run_id)


@pytest.mark.parametrize("verb", ["status", "pause", "cancel", "rerun", "result", "history", "explain"])
def test_a_run_that_is_not_there_is_not_found_by_any_verb(deployment: Deployment, door: Door, verb: str) -> None:
    del deployment  # only its servers are needed
    with pytest.raises(Refused) as refusal:
        door(verb, str(uuid4()))
    assert refusal.value.error == "RunNotFound"
