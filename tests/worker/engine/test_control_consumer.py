"""The control queue, spoken to with raw messages: commands, repetitions, and everything that is no command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis

from interlock import Step, Workflow
from interlock.core.errors import CommandRefused, CommandTimeout, InvalidPlan, RunNotFound, TransitionNotAllowed
from interlock.signals.control.queues import dead_letter_queue
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name
from tests.worker.raw_link import raw_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock import Client
    from tests.worker.deployment import Deployment
    from tests.worker.raw_link import RawLink


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


@pytest.fixture
def remote(deployment: Deployment) -> Iterator[Client]:
    """A client without a database."""
    with deployment.remote_client() as client:
        yield client


@pytest.fixture
def raw(deployment: Deployment) -> Iterator[RawLink]:
    """A raw end of the control queue."""
    with raw_link(deployment) as link:
        yield link


def _plan(*steps: Step) -> dict[str, Any]:
    return Workflow("raw", "By raw message.", steps).to_dict()


def test_every_command_is_answered_and_does_what_it_says(deployment: Deployment, raw: RawLink, shut: str) -> None:
    plan = _plan(held("a", shut, 7))
    answer = raw.ask("enqueue", args={"plan": plan}, actor="ada", reason="why not")
    assert answer["ok"], answer
    run = {"workflow_id": answer["result"]}
    deployment.begun(run["workflow_id"])
    request_id = uuid4().hex
    paused = raw.ask("pause", **run, id=request_id, actor="ada", reason="tea", args={"mode": "drain"})
    assert paused == {"id": request_id, "ok": True, "result": None}
    status = raw.ask("status", **run)["result"]
    assert (status["status"], status["pause"]["by"]) == ("paused", "ada")
    assert raw.ask("resume", **run)["ok"]
    assert run["workflow_id"] in [row["run_id"] for row in raw.ask("list")["result"]]
    deployment.ledger.open_gate(shut)
    deployment.wait_for_status(run["workflow_id"], "completed")
    events = raw.ask("replay", **run, args={"after_seq": 1})["result"]
    assert [event["data"]["seq"] for event in events] == list(range(2, len(events) + 2))
    assert events[-1]["type"] == "interlock.workflow.state_changed"
    assert raw.ask("result", **run, args={"step": "a"})["result"] == 7
    refused = raw.ask("cancel", **run)
    assert not refused["ok"]
    assert refused["error"]["type"] == "TransitionNotAllowed"
    (row,) = [row for row in deployment.history(run["workflow_id"]) if row.to_state == "paused" and not row.step_key]
    assert (row.transitioned_by, row.transition_reason) == ("ada", "tea")


POISON = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe\x00", id="no text"),
    pytest.param(b"{", id="half JSON"),
    pytest.param(b"[" * 100_000, id="deep"),
    pytest.param(b'{"args":' * 50_000 + b"1" + b"}" * 50_000, id="deep objects"),
    pytest.param(b"[1, 2]", id="a list"),
    pytest.param(b"null", id="null"),
    pytest.param({}, id="empty"),
    pytest.param({"command": "explode"}, id="unknown command"),
    pytest.param({"command": "pause", "workflow_id": 7}, id="wrong type"),
    pytest.param({"command": "pause", "workflow_id": "x'; DROP TABLE workflow_runs; --"}, id="no name"),
    pytest.param({"command": "list", "surprise": 1}, id="unknown field"),
    pytest.param({"command": "list", "args": []}, id="args is a list"),
    pytest.param({"command": "list", "session_id": "a b"}, id="session"),
    pytest.param({"command": "cancel", "workflow_id": str(uuid4()), "reason": "x" * 1_000_000}, id="one megabyte"),
    pytest.param({"command": "list", "id": ""}, id="no id"),
]

# Commands by their form, and yet nothing that could be carried out.
UNUSABLE = [
    pytest.param({"command": "replay", "workflow_id": str(uuid4()), "args": {"after_seq": "soon"}}, id="after_seq"),
    pytest.param({"command": "replay", "workflow_id": str(uuid4()), "args": {"limit": {}}}, id="limit"),
    pytest.param({"command": "list", "args": {"name": {"a": 1}}}, id="name"),
    pytest.param({"command": "list", "args": {"status": 7}}, id="status"),
    pytest.param({"command": "list", "args": {"limit": -5}}, id="negative limit"),
    pytest.param({"command": "list", "args": {"created_after": "yesterday"}}, id="time"),
    pytest.param({"command": "cancel", "workflow_id": str(uuid4()), "if_seq": 2**80}, id="huge if_seq"),
    pytest.param({"command": "enqueue", "args": {"plan": 7}}, id="plan"),
    pytest.param({"command": "enqueue"}, id="no plan"),
    pytest.param({"command": "enqueue", "args": {"plan": "$plan", "input": "a\u0000b"}}, id="NUL in the input"),
    pytest.param({"command": "enqueue", "args": {"plan": "$plan", "name": "\ud800"}}, id="half a character"),
    pytest.param({"command": "enqueue", "args": {"plan": "$plan", "name": "x" * 10_000}}, id="long name"),
    pytest.param({"command": "enqueue", "args": {"plan": "$plan"}, "actor": "a\u0000b"}, id="NUL in the actor"),
    pytest.param({"command": "cancel"}, id="no workflow"),
    pytest.param({"command": "cancel", "workflow_id": "no-uuid"}, id="no uuid"),
]


@pytest.mark.parametrize("poison", POISON)
def test_what_is_no_command_is_answered_and_set_aside_and_the_next_one_is_carried_out(
    deployment: Deployment, raw: RawLink, poison: bytes | dict[str, Any]
) -> None:
    before = _dead(deployment)
    if isinstance(poison, dict):
        raw.send(json.dumps({"id": uuid4().hex, "reply_to": raw.reply_to, **poison}))
        answer = raw.reply()
        assert not answer["ok"]
        assert answer["error"]["type"] == "CommandRefused"
    else:
        raw.send(poison)
    wait_until(lambda: _dead(deployment) == before + 1, DEADLINE_S, "the message is set aside")
    assert raw.ask("list")["ok"]


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_a_command_that_cannot_be_carried_out_is_answered_and_does_not_come_back(
    deployment: Deployment, raw: RawLink, unusable: dict[str, Any]
) -> None:
    text = json.dumps({"id": uuid4().hex, "reply_to": raw.reply_to, **unusable})
    raw.send(text.replace('"$plan"', json.dumps(_plan(Step("a", task_name("add"), (1, 2))))))
    answer = raw.reply()
    assert not answer["ok"]
    assert raw.ask("list")["ok"]
    with Redis.from_url(deployment.broker.url(0)) as redis:
        assert redis.llen("interlock.control") == 0


@pytest.mark.parametrize("reply_to", ["celery", "interlock.reply.", "interlock.reply.a b", "interlock.reply.x\n", 7])
def test_a_reply_is_not_sent_to_a_queue_of_somebody_else(
    deployment: Deployment, raw: RawLink, reply_to: object
) -> None:
    before = _dead(deployment)
    raw.send(json.dumps({"id": uuid4().hex, "command": "list", "reply_to": reply_to}))
    wait_until(lambda: _dead(deployment) == before + 1, DEADLINE_S, "the message is set aside")
    with Redis.from_url(deployment.broker.url(0), decode_responses=True) as redis:
        assert redis.llen(str(reply_to)) == 0


def test_a_message_that_the_transport_cannot_read_does_not_end_the_consumer(
    deployment: Deployment, raw: RawLink
) -> None:
    with Redis.from_url(deployment.broker.url(0)) as redis:
        redis.lpush("interlock.control", "this is no kombu message")
        redis.lpush("interlock.control", '{"body": "e30=", "properties": {}}')
    assert raw.ask("list")["ok"]


def test_answers_that_nobody_fetches_go_away(deployment: Deployment, raw: RawLink) -> None:
    raw.command("list")
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen(raw.reply_to) == 1, DEADLINE_S, "an answer")
        wait_until(lambda: 0 < redis.ttl(raw.reply_to) <= 60, DEADLINE_S, "it expires")


def test_a_client_without_a_database_has_every_verb(deployment: Deployment, remote: Client, shut: str) -> None:
    b = Step("b", task_name("add"), ({"$expr": "results.a"}, 1), after="a")
    run_id = remote.enqueue(Workflow("far", "From far away.", [held("a", shut, 1), b]))
    deployment.begun(run_id)
    remote.pause(run_id, mode="drain", reason="tea")
    assert remote.status(run_id)["status"] == "paused"
    remote.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert remote.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert remote.result(run_id) == {"b": 2}
    assert remote.result(run_id, "a") == 1
    assert run_id in [run["run_id"] for run in remote.list(name="far")]
    seqs = [change.seq for change in remote.history(run_id)]
    assert seqs == list(range(1, remote.status(run_id)["seq"] + 1))
    assert [change.seq for change in remote.watch(run_id, timeout_s=DEADLINE_S)] == seqs
    with gate(deployment, uuid4().hex) as never:
        cancelled = remote.enqueue(Workflow("far", "From far away.", [held("a", never, 1)]))
        remote.cancel(cancelled, reason="no")
    assert remote.status(cancelled)["status"] == "cancelled"


def test_errors_come_back_as_what_they_were(remote: Client) -> None:
    run_id = remote.enqueue(Workflow("far", "From far away.", [Step("a", task_name("add"), (1, 2))]))
    remote.wait(run_id, timeout_s=DEADLINE_S)
    with pytest.raises(TransitionNotAllowed) as refused:
        remote.pause(run_id)
    assert (refused.value.from_state, refused.value.to_state) == ("completed", "paused")
    with pytest.raises(RunNotFound):
        remote.status(str(uuid4()))
    with pytest.raises(CommandRefused):
        remote.result(run_id, "nothing")
    with pytest.raises(InvalidPlan) as invalid:
        remote.enqueue(Workflow("far", "From far away.", [Step("a", "no.such.task")]))
    assert "no.such.task" in invalid.value.faults[0]


def test_without_a_worker_a_command_times_out_and_repeated_later_acts_once(deployment: Deployment, shut: str) -> None:
    """The prefix gives the commands a queue of their own, which nobody consumes until the second worker comes."""
    run_id = deployment.enqueue(held("a", shut))
    with deployment.remote_client() as probe:
        patient = probe.settings.model_copy(update={"channel_prefix": "later"})
    hasty = patient.model_copy(update={"command_timeout_s": 1})
    with deployment.remote_client(settings=hasty) as remote:
        with pytest.raises(CommandTimeout) as timeout:
            remote.cancel(run_id, reason="first", request_id="cancel-1")
        assert timeout.value.request_id == "cancel-1"
    later = deployment.worker("later", concurrency=1, args=("--queues", "none"), INTERLOCK_CHANNEL_PREFIX="later")
    deployment.wait_for_status(run_id, "cancelled")
    with deployment.remote_client(settings=patient) as remote:
        remote.cancel(run_id, reason="second", request_id="cancel-1")
    later.terminate()
    rows = [row for row in deployment.history(run_id) if row.to_state == "cancelled" and row.step_key is None]
    assert [row.transition_reason for row in rows] == ["first"]


def _dead(deployment: Deployment) -> int:
    with Redis.from_url(deployment.broker.url(0)) as redis:
        return int(redis.llen(dead_letter_queue("interlock").name))
