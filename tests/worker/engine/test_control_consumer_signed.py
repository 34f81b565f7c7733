"""Signed commands over a real queue: who has a session's key has every verb, who has not has none, and learns nothing."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from kombu import Connection, Producer
from redis import Redis

from interlock import Step, Workflow
from interlock.client import control_link
from interlock.core.errors import RunNotFound, SignatureRefused, UntrustedAnswer
from interlock.core.settings import Settings
from interlock.signals.control.command import parse_fields
from interlock.signals.control.queues import dead_letter_queue
from interlock.signals.control.signing import Keyring
from interlock.signals.control.verbs import VERBS
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name
from tests.worker.raw_link import raw_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock import Client
    from tests.worker.deployment import Deployment
    from tests.worker.raw_link import RawLink

ALPHA, BETA, OLD = "a" * 40, "b" * 40, "o" * 40
KEYS = {"alpha": [ALPHA, OLD], "beta": BETA}


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    deployment.worker("signed", INTERLOCK_SIGNING_KEYS=json.dumps(KEYS))


@pytest.fixture
def raw(deployment: Deployment) -> Iterator[RawLink]:
    """A raw end of the control queue: whoever reaches the broker."""
    with raw_link(deployment) as link:
        yield link


def _client(deployment: Deployment, keys: Any, session_id: str = "alpha", timeout_s: float = 10) -> Client:
    settings = Settings.load(None, {}, command_timeout_s=timeout_s, watch_poll_s=1, signing_keys=keys)
    return deployment.remote_client(settings=settings, session_id=session_id)


def _dead(deployment: Deployment) -> list[dict[str, Any]]:
    """What was set aside, newest first."""
    with Redis.from_url(deployment.broker.url(0), decode_responses=True) as redis:
        entries = [json.loads(entry) for entry in redis.lrange(dead_letter_queue("interlock").name, 0, -1)]
    return [json.loads(base64.b64decode(entry["body"])) for entry in entries]


def test_who_has_the_key_has_every_verb(deployment: Deployment) -> None:
    name = uuid4().hex
    b = Step("b", task_name("add"), ({"$expr": "results.a"}, 1), after="a")
    with _client(deployment, {"alpha": ALPHA}) as client, gate(deployment, name):
        run_id = client.enqueue(Workflow("signed", "With a key.", [held("a", name, 1), b]))
        client.pause(run_id, mode="drain", reason="tea")
        assert client.status(run_id)["status"] == "paused"
        client.resume(run_id)
        deployment.ledger.open_gate(name)
        assert client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert client.result(run_id, "b") == 2
        assert [run["run_id"] for run in client.list()] == [run_id]
        assert client.explain(run_id)["status"] == "completed"
        assert client.history(run_id)[-1].to_state == "completed"
    with _client(deployment, {"alpha": OLD}) as client:
        assert client.status(run_id)["status"] == "completed", "the key before is still accepted, and answers"


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """A run of the session alpha that is planning and stays so."""
    with _client(deployment, KEYS) as client:
        return client.create("Stay where you are.")


ARGS: dict[str, dict[str, Any]] = {
    "enqueue": {"plan": [{"key": "a", "task": task_name("add")}]},
    "create": {"task_description": "Not signed."},
    "set_plan": {"plan": [{"key": "a", "task": task_name("add")}]},
    **{verb: {"step": "a"} for verb in ("approve", "reject", "retry", "settle")},
}


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_signature_no_verb_is_carried_out(
    deployment: Deployment, raw: RawLink, run_id: str, verb: str
) -> None:
    with _client(deployment, KEYS) as client:
        before = client.list(limit=1000), client.status(run_id)
    command = {"session_id": "alpha", "workflow_id": run_id, "args": ARGS.get(verb, {})}
    answer = raw.ask(verb, **command, id=f"unsigned-{verb}")
    assert answer["error"]["type"] == "SignatureRefused"
    assert answer["error"]["fields"]["code"] == "unsigned"
    assert (answer["id"], answer["ok"]) == (f"unsigned-{verb}", False)
    missing = raw.ask(verb, **{**command, "workflow_id": str(uuid4())})
    assert missing["error"] == answer["error"], "the same for a run that does not exist"
    dead = _dead(deployment)[1]
    assert f"unsigned-{verb}" in dead["body"]
    assert "signature" in dead["refused"]
    with _client(deployment, KEYS) as client:
        assert (client.list(limit=1000), client.status(run_id)) == before


def test_a_client_without_the_key_is_told_at_once_what_it_lacks(deployment: Deployment, run_id: str) -> None:
    with _client(deployment, {}) as client:
        with pytest.raises(SignatureRefused) as refused:
            client.status(run_id)
        assert (refused.value.code, refused.value.session_id) == ("unsigned", "alpha")
        assert "interlock_signing_keys" in str(refused.value)


def test_who_has_another_sessions_key_is_refused(deployment: Deployment, run_id: str) -> None:
    with _client(deployment, {"alpha": BETA}, timeout_s=5) as client:
        with pytest.raises(UntrustedAnswer) as refused:
            client.cancel(run_id)
        assert "signature" in refused.value.said
    with _client(deployment, {"beta": BETA}, session_id="beta") as beta, pytest.raises(RunNotFound):
        beta.cancel(run_id)
    with _client(deployment, KEYS) as client:
        assert client.status(run_id)["status"] == "planning"


def test_a_client_that_signs_does_not_believe_an_engine_that_does_not(deployment: Deployment) -> None:
    """The engine has no key for gamma: its answer could be anybody's."""
    with _client(deployment, {"gamma": ALPHA}, session_id="gamma", timeout_s=5) as client:
        with pytest.raises(UntrustedAnswer) as refused:
            client.list()
        assert refused.value.said == "done"
    with _client(deployment, {}, session_id="gamma") as client:
        assert client.list() == []


def test_a_forged_answer_is_passed_over_and_the_true_one_taken(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"interlock.reply.alpha:{uuid4().hex}"
    monkeypatch.setattr(control_link, "reply_name", lambda _: name)
    with Connection(deployment.broker.url(0)) as connection:
        forged: list[object] = [
            {"id": "known", "ok": True, "result": None},
            {"id": "known", "ok": True, "result": None, "signature": "0" * 64},
            {"id": "another", "ok": True},
            ["known"],
        ]
        for answer in forged:
            Producer(connection).publish(json.dumps(answer), routing_key=name, content_type="application/json")
        Producer(connection).publish(b"{", routing_key=name, content_type="application/json")
    with _client(deployment, KEYS) as client, pytest.raises(RunNotFound):
        client.cancel(str(uuid4()), request_id="known")


def test_a_recorded_command_acts_once_and_is_nothing_when_it_is_old(deployment: Deployment, raw: RawLink) -> None:
    settings = Settings.load(None, {}, signing_keys=KEYS)
    command = parse_fields(
        {
            "id": uuid4().hex,
            "command": "create",
            "session_id": "alpha",
            "args": {"task_description": "Once."},
            "reply_to": raw.reply_to,
        }
    )
    recorded = json.dumps(Keyring.of(settings).sign(command).document())
    raw.send(recorded)
    first = raw.reply()
    raw.send(recorded)
    assert raw.reply() == first
    with _client(deployment, KEYS) as client:
        made = [run for run in client.list(limit=1000) if run["task_description"] == "Once."]
    assert len(made) == 1
    long_ago = Keyring.of(settings, lambda: time.time() - settings.signature_window_s - 5)
    raw.send(json.dumps(long_ago.sign(command.model_copy(update={"id": uuid4().hex})).document()))
    answer = raw.reply()
    assert answer["error"]["fields"]["code"] == "expired"
    assert "signature" not in answer, "the answer to what is not believed is signed by nothing"


def test_no_key_is_in_the_log_or_in_a_command_line(deployment: Deployment) -> None:
    import psutil  # noqa: PLC0415 - of this test alone

    (worker,) = deployment.workers
    wait_until(lambda: "set a control message aside" in worker.output, DEADLINE_S, "something was refused")
    processes = [psutil.Process(pid) for pid in (worker.pid, *worker.child_pids())]
    shown = worker.output + " ".join(part for process in processes for part in process.cmdline())
    for key in (ALPHA, BETA, OLD):
        assert key not in shown
