"""Run-through with real workers: a chain in one message, and everything that holds of a step holds of a carried one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis

from interlock import RetryPolicy, Step, Workflow
from interlock.signals.events.cloud_event import decode
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, BRIEF_LEASE_S, DEADLINE_S, gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

APP = "tests.worker.run_through_app"
SOON = RetryPolicy(max_attempts=2, initial_delay_s=0.1, jitter=0)


@pytest.fixture(scope="module", autouse=True)
def worker(deployment: Deployment) -> CeleryWorker:
    """Two slots; it consumes the other queue too, from which nobody goes on to this one."""
    return deployment.worker("run-through", app=APP, args=("--queues", "celery,elsewhere"))


@pytest.fixture(scope="module")
def brief(deployment: Deployment) -> CeleryWorker:
    """A worker with a short lease and a short grace, and a queue `brief` of its own."""
    return deployment.worker("brief", app=APP, concurrency=1, args=("--queues", "brief"), **BRIEF)


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def _step(key: str, task: str, *args: Any, after: str | list[str] = (), **options: Any) -> Step:  # type: ignore[assignment]
    return Step(key, f"{APP}.{task}", args, after=after, **options)


def _chain(*tasks: tuple[str, Any], **options: Any) -> list[Step]:
    """Steps `s0`, `s1`, …, one behind the other."""
    return [
        _step(f"s{number}", name, *args, after=[f"s{number - 1}"] if number else [], **options)
        for number, (name, *args) in enumerate(tasks)
    ]


def _enqueue(deployment: Deployment, *steps: Step, **options: Any) -> str:
    return deployment.client.enqueue(Workflow("run-through", "Show that it works.", steps, run_through=True), **options)


def _run(deployment: Deployment, *steps: Step, **options: Any) -> tuple[str, str]:
    run_id = _enqueue(deployment, *steps, **options)
    return run_id, deployment.client.wait(run_id, timeout_s=DEADLINE_S)


def _carried(deployment: Deployment, run_id: str) -> list[str]:
    """The keys of the steps that a process has run through to."""
    rows = [row for row in deployment.history(run_id) if row.transition_reason == "claimed"]
    return [row.step_key for row in rows if (row.meta or {}).get("carrier")]


def _heard(deployment: Deployment, *task_ids: str, end: str = "SUCCESS") -> list[str]:
    """What the app's own receivers heard of these tasks, in order.

    A postrun is told after the result, or the state, that a test can have waited for; so this waits for each one's.

    """

    def entries() -> list[str]:
        return [entry for entry in redis.lrange("signals", 0, -1) if entry.split()[1] in task_ids]

    last = {f"postrun:{end} {task_id}" for task_id in task_ids}
    with Redis.from_url(deployment.environment["TEST_LEDGER_URL"], decode_responses=True) as redis:
        wait_until(lambda: last <= set(entries()), DEADLINE_S, "the last postrun")
        return entries()


def test_a_chain_of_two_hundred_is_one_message_and_each_task_has_all_its_signals(deployment: Deployment) -> None:
    run_id, status = _run(deployment, *_chain(*[("echo", number) for number in range(200)]))
    assert status == "completed"
    assert _carried(deployment, run_id) == [f"s{number}" for number in range(1, 200)]
    rows = deployment.steps(run_id).values()
    assert [row.result for row in rows] == list(range(200))
    assert all(deployment.ledger.of(row.id) == ["echo"] for row in rows)
    assert len({pid for row in rows for pid in deployment.ledger.pids(row.id)}) == 1
    signals = [f"{what} {row.task_id}" for row in rows for what in ("prerun", "success", "postrun:SUCCESS")]
    assert _heard(deployment, *(row.task_id for row in rows)) == signals
    carriers = {row.meta["carrier"] for row in deployment.history(run_id) if (row.meta or {}).get("carrier")}
    assert carriers == {deployment.step(run_id, "s0").task_id}
    assert not any(row.carrier_id for row in rows)


def test_a_body_sees_what_it_would_have_seen_of_its_message(deployment: Deployment) -> None:
    a = _step("a", "shows", 1, [2])
    b = _step("b", "shows", a.result["id"], after="a")
    run_id, status = _run(deployment, a, b)
    assert status == "completed"
    assert _carried(deployment, run_id) == ["b"]
    first, second = (row.result for row in deployment.steps(run_id).values())
    ids = [row.task_id for row in deployment.steps(run_id).values()]
    assert [first["id"], second["id"]] == [first["correlation_id"], second["correlation_id"]] == ids
    assert second["args"] == second["request_args"] == [[ids[0]], {}]
    assert first["step"] == ["a", ids[0], 1, False]
    assert second["step"] == ["b", ids[1], 1, False]
    same = ("names", "kinds", "headers", "root_id", "queue", "retries", "ignore_result", "hostname")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}


def test_arguments_that_cannot_be_had_fail_the_step(deployment: Deployment) -> None:
    steps = [_step("a", "echo", "text"), _step("b", "echo", {"$expr": "sum(results.a)"}, after="a")]
    run_id, status = _run(deployment, *steps)
    assert status == "failed"
    assert _carried(deployment, run_id) == ["b"]
    row = deployment.step(run_id, "b")
    assert row.status == "failed"
    assert row.error.startswith("arguments: ")
    assert row.attempt == 1


def test_a_failed_body_is_tried_again_by_its_policy_and_the_session_goes_on_behind_it(deployment: Deployment) -> None:
    run_id, status = _run(deployment, *_chain(("echo",), ("fails_first", 1), ("echo",), retry=SOON))
    assert status == "completed"
    assert deployment.moves(run_id, "s1") == ["pending", "running", "failed", "running", "completed"]
    assert _carried(deployment, run_id) == ["s1", "s2"]
    row = deployment.step(run_id, "s1")
    assert (row.result, row.attempt, row.failures) == (2, 2, 1)
    assert _heard(deployment, f"{row.id}.1", end="FAILURE") == [
        f"{what} {row.id}.1" for what in ("prerun", "failure", "postrun:FAILURE")
    ]


def test_a_task_s_own_retry_is_as_ever(deployment: Deployment) -> None:
    run_id, status = _run(deployment, *_chain(("echo",), ("grows", 1), ("echo",)))
    assert status == "completed"
    row = deployment.step(run_id, "s1")
    assert row.result == 3
    assert deployment.ledger.of(row.id) == [f"number {number} retries {number - 1}" for number in (1, 2, 3)]


def test_a_result_that_is_not_json_fails_the_carried_step(deployment: Deployment) -> None:
    run_id, status = _run(deployment, *_chain(("echo",), ("returns_object",), ("echo",)))
    assert status == "failed"
    assert _carried(deployment, run_id) == ["s1"]
    assert "the result is not JSON" in deployment.step(run_id, "s1").error


@pytest.mark.parametrize(
    "options",
    [
        {"task": "limited"},
        {"task": "rated"},
        {"task": "elsewhere"},
        {"task": "echo", "queue": "elsewhere"},
        {"task": "echo", "timeout_s": 20},
        {"task": "echo", "run_through": False},
    ],
    ids=["task limit", "rate limit", "route", "queue", "timeout", "not asked for"],
)
def test_what_main_has_to_see_goes_through_the_broker(deployment: Deployment, options: dict[str, Any]) -> None:
    task = options.pop("task")
    run_id, status = _run(deployment, _step("a", "echo", 1), _step("b", task, 2, after="a", **options))
    assert status == "completed"
    assert _carried(deployment, run_id) == []
    assert deployment.step(run_id, "b").result == 2 or task == "rated"


def test_a_queue_that_a_plan_names_is_run_through_as_well(deployment: Deployment) -> None:
    steps = [_step("a", "echo", queue="elsewhere"), _step("b", "elsewhere", after="a"), _step("c", "echo", after="b")]
    run_id, status = _run(deployment, *steps)
    assert status == "completed"
    assert _carried(deployment, run_id) == ["b"]


def test_a_message_with_a_time_limit_carries_nobody(deployment: Deployment) -> None:
    """Its timer runs in MAIN, and would hit whatever runs when it is up."""
    run_id, status = _run(deployment, _step("a", "echo", timeout_s=20), _step("b", "echo", after="a"))
    assert status == "completed"
    assert _carried(deployment, run_id) == []
    run_id, status = _run(deployment, _step("a", "limited"), _step("b", "echo", after="a"))
    assert status == "completed"
    assert _carried(deployment, run_id) == []


def test_an_approval_is_waited_for(deployment: Deployment) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("echo",)), _step("gate", "echo", after="s1", approval=True))
    deployment.wait_for_status(run_id, "waiting_approval")
    assert _carried(deployment, run_id) == ["s1"]
    deployment.client.approve(run_id, "gate")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


def test_the_events_of_a_session_are_told_while_its_body_goes_on(deployment: Deployment, shut: str) -> None:
    """No poll and no catching up: what a subscriber of the channel hears while the third body waits."""
    heard: list[tuple[str | None, str]] = []
    with Redis.from_url(deployment.events.url(0)) as redis, redis.pubsub() as pubsub:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=DEADLINE_S) is not None
        run_id = _enqueue(deployment, *_chain(("echo", 0), ("echo", 1), ("hold", shut)))

        def all_told() -> bool:
            while (message := pubsub.get_message(timeout=0.2)) is not None:
                change = decode(message["data"])
                # The producer tells of what is pending, beside the child.
                if change.workflow_id == run_id and change.step_key and change.to_state != "pending":
                    heard.append((change.step_key, change.to_state))
            return ("s2", "running") in heard

        wait_until(all_told, DEADLINE_S, "the third step's claim is told")
    assert _carried(deployment, run_id) == ["s1", "s2"]
    assert heard == [
        ("s0", "running"),
        ("s0", "completed"),
        ("s1", "running"),
        ("s1", "completed"),
        ("s2", "running"),
    ]


def test_a_pause_interrupts_the_carried_body_and_it_is_resumed(deployment: Deployment, shut: str) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",)))
    step_id = deployment.begun(run_id, ["s1"])["s1"]
    deployment.client.pause(run_id)
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    wait_until(lambda: deployment.step(run_id, "s1").drain_token is None, DEADLINE_S, "the attempt is let go")
    deployment.client.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "stopped by StepInterrupted", "begin", "end"]
    row = deployment.step(run_id, "s1")
    assert (row.attempt, row.failures, row.losses) == (2, 0, 0)


def test_a_pause_in_mode_drain_lets_the_carried_body_finish_and_nothing_else(deployment: Deployment, shut: str) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",)))
    deployment.begun(run_id, ["s1"])
    deployment.client.pause(run_id, mode="drain")
    deployment.ledger.open_gate(shut)
    wait_until(lambda: deployment.step(run_id, "s1").late is not None, DEADLINE_S, "its result is kept")
    assert deployment.step(run_id, "s2").status == "pending"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(deployment.step_id(run_id, "s1")) == ["begin", "end"]


@pytest.mark.parametrize("lost", [False, True], ids=["broadcast", "heartbeat"])
def test_a_cancel_is_obeyed_at_once_by_a_carried_body(
    deployment: Deployment, shut: str, *, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the broadcast is lost, the heartbeat finds it, which names the message and not the step."""
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",)))
    step_id = deployment.begun(run_id, ["s1"])["s1"]
    if lost:
        monkeypatch.setattr(type(deployment.app.control), "broadcast", lambda *_, **__: None)
    started = time.monotonic()
    deployment.client.cancel(run_id)
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    assert time.monotonic() - started < 5
    assert deployment.ledger.of(step_id) == ["begin", "stopped by StepInterrupted"]
    assert deployment.client.status(run_id)["counts"] == {"completed": 1, "cancelled": 2}
    wait_until(lambda: deployment.step(run_id, "s1").drain_token is None, DEADLINE_S, "the attempt is let go")


def test_a_carried_body_that_swallows_the_signal_is_ended_after_the_grace(
    deployment: Deployment, brief: CeleryWorker, shut: str
) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("hard_of_hearing", shut), ("echo",), queue="brief"))
    step_id = deployment.begun(run_id, ["s1"])["s1"]
    (pid,) = deployment.ledger.pids(step_id)
    deployment.client.cancel(run_id)
    deployment.ledger.wait_for(step_id, "swallowed")
    wait_until(lambda: pid not in brief.child_pids(), DEADLINE_S, "its process is gone")
    wait_until(lambda: deployment.step(run_id, "s1").drain_token is None, DEADLINE_S, "the attempt is let go")
    assert deployment.step(run_id, "s0").status == "completed"
    again = _chain(("echo",), ("echo",), queue="brief")
    assert _run(deployment, *again)[1] == "completed", "the slot was lost with the process"


def test_a_pause_that_terminates_ends_the_process_of_a_carried_body(
    deployment: Deployment, worker: CeleryWorker, shut: str
) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("hard_of_hearing", shut), ("echo",)))
    step_id = deployment.begun(run_id, ["s1"])["s1"]
    (pid,) = deployment.ledger.pids(step_id)
    deployment.client.pause(run_id, mode="terminate")
    wait_until(lambda: pid not in worker.child_pids(), DEADLINE_S, "its process is gone")
    deployment.client.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id, "s1")
    assert (row.attempt, row.failures, row.losses) == (2, 0, 0)


@pytest.mark.usefixtures("brief")
def test_the_lease_of_a_carried_step_is_renewed(deployment: Deployment, shut: str) -> None:
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",), queue="brief"))
    deployment.begun(run_id, ["s1"])
    lease = deployment.step(run_id, "s1").lease_until
    wait_until(
        lambda: (deployment.step(run_id, "s1").lease_until - lease).total_seconds() > 1.5 * BRIEF_LEASE_S,
        DEADLINE_S,
        "1.5 leases",
    )
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id, "s1")
    assert (row.attempt, row.losses) == (1, 0)
    assert _carried(deployment, run_id) == ["s1", "s2"]


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGUSR1"])
def test_a_revoke_of_the_message_costs_the_carried_step_an_attempt_and_not_its_life(
    deployment: Deployment, shut: str, signal: str
) -> None:
    """The revoke is of a step that has completed; the one that runs is run again, whatever its policy says of revokes."""
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",)))
    deployment.begun(run_id, ["s1"])
    deployment.app.control.revoke(deployment.step(run_id, "s0").task_id, terminate=True, signal=signal)
    wait_until(lambda: deployment.step(run_id, "s1").attempt == 2, DEADLINE_S, "another attempt")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id, "s1")
    assert (row.failures, row.losses) == (0, 1 if signal == "SIGTERM" else 0)


def test_a_foreign_task_is_as_ever(deployment: Deployment, shut: str) -> None:
    """Also in the process that has just run a chain through."""
    run_id = _enqueue(deployment, *_chain(("echo",), ("hold", shut, 1), ("echo",)))
    deployment.begun(run_id, ["s1"])
    answer = deployment.app.send_task(f"{APP}.foreign", ("here",))
    assert answer.get(timeout=DEADLINE_S) == "here"
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    answers = [deployment.app.send_task(f"{APP}.foreign", (number,)) for number in range(4)]
    assert [answer.get(timeout=DEADLINE_S) for answer in answers] == [0, 1, 2, 3]
    for answer in answers:
        answer.forget()
    heard = _heard(deployment, answers[0].id)
    assert heard == [f"{what} {answers[0].id}" for what in ("prerun", "success", "postrun:SUCCESS")]


def test_after_its_time_the_next_step_has_a_message_of_its_own(deployment: Deployment, shut: str) -> None:
    deployment.worker("short", app=APP, args=("--queues", "short"), concurrency=1, INTERLOCK_RUN_THROUGH_S="3")
    steps = _chain(("echo",), ("hold", shut, 1), ("echo",), ("echo",), queue="short")
    run_id = _enqueue(deployment, *steps)
    deployment.begun(run_id, ["s1"])
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 3, DEADLINE_S, "its time is over")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert _carried(deployment, run_id) == ["s1", "s3"]


def test_a_worker_that_limits_the_time_of_its_messages_sends_one_for_each_step(deployment: Deployment) -> None:
    """MAIN would count the time of all of them against the first; for other pools see tests/worker/test_pools.py."""
    deployment.worker("limited", app=APP, args=("--queues", "limited", "--time-limit", "60"), concurrency=1)
    run_id, status = _run(deployment, *_chain(("echo",), ("echo",), queue="limited"))
    assert status == "completed"
    assert _carried(deployment, run_id) == []
