"""`current_step()` in real bodies: who it is, what survives attempts, pauses and dead processes, and when it says stop."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from interlock import RetryPolicy, Step
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, DEADLINE_S, engine_pid, gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment

APP = "tests.worker.author_tasks"
AGAIN = RetryPolicy(max_attempts=5, initial_delay_s=0.01, jitter=0)


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture(scope="module")
def threads(deployment: Deployment) -> str:
    """The queue of a worker whose bodies run in threads."""
    options = ("--pool", "threads", "--queues", "threads")
    deployment.worker("threads", concurrency=3, app=APP, args=options, INTERLOCK_APP=f"{APP}:app")
    return "threads"


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def step(key: str, task: str, *args: Any, **options: Any) -> Step:
    """A step that runs one of the authors' tasks."""
    return Step(key, f"{APP}.{task}", args, **options)


def drained(deployment: Deployment, run_id: str) -> None:
    """Wait until no body of a paused run is left."""
    wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "nothing drains")


# --- identity


def test_a_body_knows_its_run_its_step_and_its_attempt(deployment: Deployment) -> None:
    run_id, status = deployment.run(step("who", "whoami", 1))
    assert status == "completed"
    step_id = deployment.step_id(run_id, "who")
    assert deployment.client.result(run_id) == {"who": [run_id, step_id, "default", "who", 1]}


def test_the_idempotency_key_stays_and_the_task_id_changes_over_attempts(deployment: Deployment) -> None:
    run_id, status = deployment.run(step("who", "whoami", 3, retry=AGAIN))
    assert status == "completed"
    step_id = deployment.step_id(run_id, "who")
    noted = [entry.split() for entry in deployment.ledger.of(step_id)]
    assert [attempt for attempt, _, _ in noted] == ["1", "2", "3"]
    assert len({task_id for _, task_id, _ in noted}) == 3
    assert {key for _, _, key in noted} == {step_id}


def test_two_steps_of_one_task_have_different_idempotency_keys(deployment: Deployment) -> None:
    run_id, status = deployment.run(step("a", "whoami", 1), step("b", "whoami", 1))
    assert status == "completed"
    keys = {deployment.ledger.of(deployment.step_id(run_id, key))[0].split()[2] for key in "ab"}
    assert len(keys) == 2


def test_outside_a_step_there_is_none(deployment: Deployment) -> None:
    """The same task, sent by `.delay()`, is no step; sent in a plan, it is one."""
    sent = deployment.app.send_task(f"{APP}.outside")
    deployment.ledger.wait_for(sent.id, "no step")
    run_id, _ = deployment.run(step("a", "outside"))
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["a step"]


# --- checkpoints


@pytest.mark.parametrize("trouble", ["raise", "die"])
def test_a_later_attempt_goes_on_from_the_checkpoint(deployment: Deployment, trouble: str) -> None:
    """Whether the body failed or its process was killed: what was saved is not done again."""
    run_id, status = deployment.run(step("a", "walk", 5, 3, trouble, retry=AGAIN))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"a": [3, 2]}
    items = [f"item {number}" for number in (0, 1, 2, 3, 3, 4)]
    assert deployment.ledger.of(deployment.step_id(run_id)) == items
    reason = {"raise": "RuntimeError: raise", "die": "worker lost"}[trouble]
    assert reason in [row.transition_reason for row in deployment.history(run_id, "a")]


def test_a_checkpoint_survives_a_pause(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(step("a", "walk", 4, 2, shut))
    deployment.begun(run_id, what="item 2")
    deployment.client.pause(run_id)
    drained(deployment, run_id)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": [2, 2]}


def test_what_is_saved_while_cleaning_up_is_kept(deployment: Deployment, shut: str) -> None:
    """A body that was interrupted may still save and show progress; the next attempt finds it."""
    run_id = deployment.enqueue(step("a", "tidy", shut))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.pause(run_id)
    deployment.ledger.wait_for(step_id, "tidied")
    drained(deployment, run_id)
    assert deployment.client.status(run_id)["steps"][0]["progress"]["message"] == "tidied"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": {"saved": "while stopping", "attempt": 1}}


def test_a_stop_never_tears_a_checkpoint(deployment: Deployment) -> None:
    """A body that only saves is paused again and again: no save is lost or half done, and no connection breaks."""
    limit = 10**9
    run_id = deployment.enqueue(step("a", "hasty", limit))
    step_id = deployment.step_id(run_id)
    saved = [0]
    for times in range(1, 13):
        deployment.ledger.wait_for(step_id, "begin", times)
        wait_until(lambda: (deployment.step(run_id).checkpoint or 0) > saved[-1], DEADLINE_S, "it goes on from there")
        deployment.client.pause(run_id)
        drained(deployment, run_id)
        saved.append(deployment.step(run_id).checkpoint)
        deployment.client.resume(run_id)
    deployment.ledger.wait_for(step_id, "begin", 13)
    deployment.client.cancel(run_id)
    wait_until(lambda: len(deployment.ledger.of(step_id)) == 26, DEADLINE_S, "the last body ends")
    assert deployment.ledger.of(step_id) == ["begin", "stopped by StepInterrupted"] * 13
    assert saved == sorted(set(saved))
    row = deployment.step(run_id)
    assert (row.failures, row.losses) == (0, 0)
    moves = deployment.moves(run_id)
    assert "failed" not in moves, "a save was torn, and failed the step"


def test_an_attempt_that_was_replaced_cannot_save(deployment: Deployment, shut: str) -> None:
    """Its lease ran out because nobody spoke for it; another attempt has the step, and the old one is told at its next save.

    Where the engine is stopped in the middle of a transaction, the database ends that, and lets go of the step.
    """
    options = {**BRIEF, "INTERLOCK_APP": f"{APP}:app", "INTERLOCK_IDLE_TRANSACTION_S": "3"}
    worker = deployment.worker("brief", concurrency=2, app=APP, args=("--queues", "brief"), **options)
    run_id = deployment.enqueue(step("a", "superseded", shut, retry=AGAIN, queue="brief"))
    step_id = deployment.begun(run_id, what="begin 1")["a"]
    engine = engine_pid(worker)
    os.kill(engine, signal.SIGSTOP)
    try:
        runtime = deployment.client._open_runtime()
        sweeper = Sweeper(runtime.database, runtime.settings)

        def taken_over() -> bool:
            sweeper.sweep()
            return deployment.ledger.of(step_id)[-1:] == ["begin 2"]

        wait_until(taken_over, DEADLINE_S, "its lease runs out and it is tried again")
        deployment.ledger.open_gate(shut)
        deployment.ledger.wait_for(step_id, "superseded")
    finally:
        os.kill(engine, signal.SIGCONT)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": 2}
    assert deployment.step(run_id).checkpoint is None


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("object", "NotJson: checkpoint['deep'][0]: object is not JSON"),
        ("much", "PayloadTooLarge: checkpoint: 2,000,002"),
    ],
)
def test_what_cannot_be_saved_fails_the_step_with_the_reason(deployment: Deployment, kind: str, error: str) -> None:
    run_id, status = deployment.run(step("a", "saves_badly", kind))
    assert status == "failed"
    assert deployment.step(run_id).error.startswith(error)


# --- progress


def test_status_shows_progress_while_the_body_runs(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(step("a", "shows_progress", shut))
    deployment.begun(run_id)
    shown = deployment.client.status(run_id)["steps"][0]
    assert shown["status"] == "running"
    assert shown["progress"] == {"done": 5, "total": 10, "message": "half"}
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


# --- should_stop


def test_an_interrupted_body_that_asks_is_told_to_stop(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(step("a", "stopped_and_knows", shut))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.cancel(run_id)
    deployment.ledger.wait_for(step_id, "should stop: True")


def test_while_it_drains_a_body_is_not_told_to_stop(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(step("a", "polite", shut, "answer"))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.pause(run_id, mode="drain")
    before = deployment.step(run_id).drain_until
    wait_until(
        lambda: (deployment.step(run_id).drain_until - before).total_seconds() > 1.5, DEADLINE_S, "it asks again"
    )
    deployment.ledger.open_gate(shut)
    drained(deployment, run_id)
    assert deployment.ledger.of(step_id) == ["begin"]
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_in_threads_a_body_learns_of_a_stop_by_asking(
    deployment: Deployment, threads: str, shut: str, verb: str
) -> None:
    """No signal reaches a thread; what the body returns after a pause counts when the run is resumed."""
    run_id = deployment.enqueue(step("a", "polite", shut, "answer", queue=threads))
    step_id = deployment.begun(run_id)["a"]
    getattr(deployment.client, verb)(run_id)
    deployment.ledger.wait_for(step_id, "asked to stop")
    if verb == "pause":
        drained(deployment, run_id)
        deployment.client.resume(run_id)
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        assert deployment.client.result(run_id) == {"a": "answer"}
    assert deployment.ledger.of(step_id) == ["begin", "asked to stop"]


def test_in_threads_bodies_side_by_side_know_each_its_own_step(deployment: Deployment, threads: str) -> None:
    keys = [f"s{number}" for number in range(6)]
    run_id, status = deployment.run(*(step(key, "walk", 5, 2, "raise", retry=AGAIN, queue=threads) for key in keys))
    assert status == "completed"
    assert deployment.client.result(run_id) == {key: [2, 2] for key in keys}
    assert deployment.run(step("who", "whoami", 1, queue=threads))[1] == "completed"


def test_settings_that_the_tests_rely_on_are_real() -> None:
    """The limit that `saves_badly` exceeds is the default one."""
    assert Settings().max_result_bytes < 2_000_000


def test_a_question_that_cannot_be_stored_fails_its_body_at_once(deployment: Deployment) -> None:
    run_id, status = deployment.run(step("a", "asks_with_nul"))
    assert status == "failed"
    assert deployment.step(run_id).error == (
        "NotJson: request_approval['prompt']: text with a NUL character cannot be stored"
    )
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["asks"]
