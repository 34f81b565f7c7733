"""A worker with the example's roles on both servers runs workflows; a client with a session's Redis user and key alone uses it.

What each may not do, the servers refuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from interlock import Client, Step, Workflow
from interlock.core.errors import BrokerUnavailable, RunNotFound, SignatureRefused, UntrustedAnswer
from interlock.core.settings import Settings
from interlock.signals.events.subscriber import Link, Subscriber, Target
from tests.security.roles import FencedRedis, make_roles, redis_with_selectors, url_of
from tests.servers import ROOT, CeleryWorker, PostgresServer, RedisServer, wait_until
from tests.worker.deployment import DEADLINE_S, Ledger, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

APP = "tests.worker.tasks_app"
RED, BLUE = "r" * 40, "b" * 40
KEYS = {"red": RED, "blue": BLUE}

_binary = redis_with_selectors()
pytestmark = [
    pytest.mark.long,
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(_binary is None, reason="needs a redis-server of version 7 or later on PATH, for rules per key"),
]


class Restricted:
    """PostgreSQL and Redis with the example's users, and a worker that has no other."""

    def __init__(self, postgres: PostgresServer, redis: FencedRedis, ledger: RedisServer, folder: Path) -> None:
        make_roles(postgres)
        self.postgres, self.redis = postgres, redis
        self.ledger = Ledger(ledger.url(3))
        address = redis.url_of("interlock-worker", "WORKER-PASSWORD")
        self.environment = {
            "INTERLOCK_BROKER_URL": address,
            "INTERLOCK_REDIS_URL": address,
            "INTERLOCK_DATABASE_URL": url_of(postgres, "interlock_worker"),
            "INTERLOCK_SIGNING_KEYS": json.dumps(KEYS),
            "INTERLOCK_SWEEP_S": "0.3",
            "INTERLOCK_HEARTBEAT_S": "0.5",
            "INTERLOCK_LEASE_S": "2",
            "INTERLOCK_CANCEL_GRACE_S": "1",
            "TEST_LEDGER_URL": ledger.url(3),
            "PYTHONPATH": str(ROOT),
        }
        self.worker = CeleryWorker(APP, log=folder / "worker.log", env=self.environment, args=("--task-events",))

    def remote(self, keys: Mapping[str, str], session_id: str = "red") -> Client:
        """A client that has no database, and on Redis the user `red`."""
        settings = Settings.load(None, {}, signing_keys=keys, command_timeout_s=10, watch_poll_s=1)
        url = self.redis.url_of("red", "RED-PASSWORD")
        return Client(broker_url=url, redis_url=url, session_id=session_id, settings=settings, actor="red")


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restricted]:
    """Everything started, and nothing refused so far."""
    folder = tmp_path_factory.mktemp("restricted")
    with PostgresServer() as postgres, FencedRedis(str(_binary)) as redis, RedisServer() as ledger:
        restricted = Restricted(postgres, redis, ledger, folder)
        with restricted.worker:
            yield restricted
            assert "Traceback" not in restricted.worker.output
        restricted.ledger.close()


def test_a_sessions_client_runs_pauses_watches_and_asks_with_its_own_rights_alone(restricted: Restricted) -> None:
    plan = [
        Step("a", task_name("hold"), ("gate", 1)),
        Step("b", task_name("add"), ({"$expr": "results.a"}, 1), after="a"),
    ]
    restricted.redis.refusals()
    with restricted.remote({"red": RED}) as client:
        run_id = client.enqueue(Workflow("red", "With little.", plan))
        step_id = client.status(run_id)["steps"][0]["step_id"]
        restricted.ledger.wait_for(step_id, "begin")
        client.pause(run_id, reason="tea")
        wait_until(lambda: client.status(run_id)["steps"][0]["status"] == "paused", DEADLINE_S, "the body has stopped")
        client.resume(run_id)
        restricted.ledger.wait_for(step_id, "begin", 2)
        restricted.ledger.open_gate("gate")
        assert [change.to_state for change in client.watch(run_id, timeout_s=DEADLINE_S)][-1] == "completed"
        assert client.result(run_id, "b") == 2
        assert client.explain(run_id)["status"] == "completed"
        client.cancel(client.enqueue(Workflow("red", "Not at all.", [Step("a", task_name("hold"), ("never",))])))
    environment = {**restricted.environment, "PATH": ""}
    ping = [sys.executable, "-m", "celery", "-A", APP, "inspect", "ping", "--timeout", "10"]
    subprocess.run(ping, check=True, env=environment, cwd=ROOT, capture_output=True)
    assert restricted.redis.refusals() == [], "worker, engine and client have what they need"


def test_a_producer_with_a_database_role_and_no_broker_starts_a_run(restricted: Restricted) -> None:
    url = url_of(restricted.postgres, "interlock_producer")
    with Client(database_url=url, settings=Settings()) as producer:
        run_id = producer.enqueue(Workflow("shop", "Deliver.", [Step("a", task_name("add"), (1, 2))]))
        assert producer.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert producer.result(run_id, "a") == 3


def test_an_outcast_body_is_ended_and_a_dead_letter_written_by_the_same_rights(restricted: Restricted) -> None:
    restricted.redis.refusals()
    with restricted.redis.admin() as admin, restricted.remote({}) as unsigned:
        with pytest.raises(SignatureRefused):
            unsigned.list()
        wait_until(lambda: admin.llen("interlock.control.dead") > 0, DEADLINE_S, "it is set aside")
    assert restricted.redis.refusals() == []


def test_the_user_of_one_session_is_nobody_in_another(restricted: Restricted) -> None:
    with restricted.remote({"red": RED}) as client:
        run_id = client.create("Red's.")
    with restricted.remote({"blue": RED}, "blue") as forger, pytest.raises(BrokerUnavailable):
        forger.cancel(run_id)  # it may not even wait at blue's queue
    for keys in ({"red": BLUE}, {"*": BLUE}):
        with restricted.remote(keys) as forger, pytest.raises(UntrustedAnswer, match="signature"):
            forger.cancel(run_id)
    with restricted.remote({"red": RED}) as client:
        assert client.status(run_id)["status"] == "planning"
        with pytest.raises(RunNotFound):
            client.status("7d0c2f6e-0000-4000-8000-000000000001")


ACTS: dict[str, Callable[[Redis], Any]] = {
    "take a command off the queue": lambda redis: redis.rpop("interlock.control"),
    "wait for somebody's command": lambda redis: redis.brpop(["interlock.control"], 1),
    "read the queue": lambda redis: redis.lrange("interlock.control", 0, -1),
    "empty the queue": lambda redis: redis.delete("interlock.control"),
    "read dead letters": lambda redis: redis.lrange("interlock.control.dead", 0, -1),
    "send a task to a worker": lambda redis: redis.lpush("celery", "{}"),
    "read what workers hold": lambda redis: redis.hgetall("unacked"),
    "take another session's answer": lambda redis: redis.brpop(["interlock.reply.blue:x"], 1),
    "forge another session's answer": lambda redis: redis.lpush("interlock.reply.blue:x", "{}"),
    "forge an answer of its own": lambda redis: redis.lpush("interlock.reply.red:x", "{}"),
    "send remote control to workers": lambda redis: redis.publish("/0.celery.pidbox", "{}"),
    "publish an event": lambda redis: redis.publish("interlock.events:red:x", "{}"),
    "publish another session's event": lambda redis: redis.publish("interlock.events:blue:x", "{}"),
    "hear another session": lambda redis: _subscribe(redis, "interlock.events:blue:x"),
    "hear every session": lambda redis: _subscribe(redis, "interlock.events:*", by_pattern=True),
    "hear sessions whose names begin alike": lambda redis: _subscribe(redis, "interlock.events:red*", by_pattern=True),
    "hear remote control": lambda redis: _subscribe(redis, "/0.celery.pidbox"),
    "list keys": lambda redis: redis.keys("*"),
    "scan keys": lambda redis: redis.scan(),
    "flush": lambda redis: redis.flushdb(),
    "see other clients": lambda redis: redis.client_list(),
    "watch the server": lambda redis: redis.execute_command("MONITOR"),
    "see the configuration": lambda redis: redis.config_get("*"),
    "give itself rights": lambda redis: redis.acl_setuser("red", enabled=True, keys=["*"], categories=["+@all"]),
    "run a script on the queue": lambda redis: redis.eval("return redis.call('RPOP', KEYS[1])", 1, "interlock.control"),
}


def _subscribe(redis: Redis, name: str, *, by_pattern: bool = False) -> None:
    with redis.pubsub() as pubsub:
        (pubsub.psubscribe if by_pattern else pubsub.subscribe)(name)
        pubsub.get_message(timeout=1)


@pytest.mark.parametrize("user", ["red", "red-viewer"])
@pytest.mark.parametrize("act", ACTS)
def test_the_server_refuses_a_sessions_users_what_is_not_theirs(restricted: Restricted, user: str, act: str) -> None:
    password = "RED-PASSWORD" if user == "red" else "VIEWER-PASSWORD"
    with Redis.from_url(restricted.redis.url_of(user, password), socket_timeout=5) as redis:
        assert redis.ping()
        with pytest.raises(NoPermissionError):
            ACTS[act](redis)


OF_THE_WORKER: dict[str, Callable[[Redis], Any]] = {
    name: ACTS[name]
    for name in ("list keys", "flush", "see other clients", "watch the server", "see the configuration")
} | {
    "give itself rights": lambda redis: redis.acl_setuser("interlock-worker", enabled=True, keys=["*"]),
    "read another application's keys": lambda redis: redis.get("sessions:1"),
    "stop the server": lambda redis: redis.execute_command("SHUTDOWN", "NOSAVE"),
    "save to a file": lambda redis: redis.execute_command("CONFIG", "SET", "dir", "/"),
}


@pytest.mark.parametrize("act", OF_THE_WORKER)
def test_the_server_refuses_a_worker_what_no_worker_needs(restricted: Restricted, act: str) -> None:
    url = restricted.redis.url_of("interlock-worker", "WORKER-PASSWORD")
    with Redis.from_url(url, socket_timeout=5) as redis, pytest.raises(NoPermissionError):
        OF_THE_WORKER[act](redis)


def test_a_viewer_hears_its_session_and_no_other(restricted: Restricted) -> None:
    url = restricted.redis.url_of("red-viewer", "VIEWER-PASSWORD")
    heard: list[Any] = []

    def drained(subscriber: Subscriber) -> bool:
        heard.append(subscriber.get(0.5))
        return getattr(heard[-1], "to_state", None) == "planning"

    with Subscriber(url, Target("red")) as subscriber:
        wait_until(lambda: subscriber.get(0.5) is Link.SUBSCRIBED, DEADLINE_S, "the subscription")
        with restricted.remote({"red": RED}) as client:
            run_id = client.create("To be heard.")
        wait_until(lambda: drained(subscriber), DEADLINE_S, "the events")
    assert {change.workflow_id for change in heard if change is not None} == {run_id}
    with Subscriber(url, Target("blue")) as stranger:
        for _ in range(4):
            assert stranger.get(0.5) is not Link.SUBSCRIBED


def test_nobody_comes_in_without_a_name(restricted: Restricted) -> None:
    with Redis.from_url(restricted.redis.url(0), protocol=2) as redis, pytest.raises(AuthenticationError):
        redis.ping()
