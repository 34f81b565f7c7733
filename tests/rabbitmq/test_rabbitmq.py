"""The same product on RabbitMQ: dispatch, the control queue with replies and dead letters, commands carried out once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu import Producer

from interlock.core.errors import InvalidPlan, TransitionNotAllowed
from interlock.signals.control.queues import control_queue, dead_letter_queue
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kombu import Connection

    from interlock import Client

ADD, TOTAL = "tests.rabbitmq.rabbit_app.add", "tests.rabbitmq.rabbit_app.total"
FAN = [{"key": f"s{n}", "task": ADD, "args": [n, 1]} for n in range(30)]
JOIN = {
    "key": "total",
    "task": TOTAL,
    "args": [{"$expr": "[" + ", ".join(f"results.s{n}" for n in range(30)) + "]"}],
    "after": [step["key"] for step in FAN],
}


@pytest.fixture
def connection(amqp_url: str) -> Iterator[Connection]:
    """A raw connection to the broker."""
    app = Celery("raw", broker=amqp_url, set_as_current=False)
    with app.connection_for_write() as connection:
        yield connection
    app.close()


def _plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"name": "rabbit", "task_description": "Show that it works on RabbitMQ.", "steps": list(steps)}


def test_a_fan_out_and_its_join_complete(remote: Client) -> None:
    run_id = remote.enqueue(_plan(*FAN, JOIN))
    seqs = [change.seq for change in remote.watch(run_id, timeout_s=60)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert remote.result(run_id, "total") == sum(n + 1 for n in range(30))


def test_a_gate_is_approved_over_the_control_queue_and_a_repeated_command_acts_once(remote: Client) -> None:
    gate = {"key": "gate", "approval": {}}
    run_id = remote.enqueue(_plan(gate, {"key": "after", "task": ADD, "args": [1, 2], "after": "gate"}))
    remote.approve(run_id, "gate", "fine", request_id="approval-1")
    remote.approve(run_id, "gate", "fine", request_id="approval-1")
    assert remote.wait(run_id, timeout_s=60) == "completed"
    assert sum(change.to_state == "completed" and change.step_key == "gate" for change in remote.history(run_id)) == 1


def test_errors_come_back_typed(remote: Client) -> None:
    with pytest.raises(InvalidPlan, match="unknown task") as refused:
        remote.enqueue(_plan({"key": "a", "task": "nobody.knows"}))
    assert refused.value.faults
    run_id = remote.enqueue(_plan({"key": "a", "task": ADD, "args": [1, 2]}))
    remote.wait(run_id, timeout_s=60)
    with pytest.raises(TransitionNotAllowed) as ended:
        remote.pause(run_id)
    assert ended.value.from_state == "completed"


def test_a_poison_message_is_set_aside_and_the_consumer_lives_on(
    remote: Client,
    connection: Connection,
    queue: str,
) -> None:
    assert remote.list() == []  # the engine has declared its queue
    control = control_queue(queue)
    Producer(connection).publish(
        b"{not json",
        exchange=control.exchange,
        routing_key=control.routing_key,
        content_type="application/json",
        content_encoding="utf-8",
    )
    dead = dead_letter_queue(queue)(connection.default_channel)
    dead.declare()
    found: list[Any] = []

    def arrived() -> bool:
        message = dead.get(no_ack=True)
        if message is not None:
            found.append(json.loads(message.body))
        return bool(found)

    wait_until(arrived, 15, "the poison message in the dead-letter queue")
    assert found[0]["body"] == "{not json"
    assert remote.list() == []
