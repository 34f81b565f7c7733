"""Two or more processes at the same row of PostgreSQL: one order comes out, and the loser is told in a typed error."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.core.rows import step, steps

from .racers import Call, Outcome, Racers

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.attempts.attempts import AttemptRef
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


def _claimed(controller: WorkflowController, worker: WorkerDouble, *plan: dict[str, object]) -> tuple[str, AttemptRef]:
    """A run whose step a is held, and who holds it."""
    worker.queue.clear()
    run_id = controller.enqueue_workflow(list(plan), task_description="x")
    return run_id, worker.claim("a")


def test_cancel_racing_complete_has_one_winner(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """200 rounds: completed or cancelled, one of them, and the last row of the history is the state."""
    runs = [_claimed(controller, worker, step("a")) for _ in range(200)]
    rounds = racers.rounds(
        len(runs),
        lambda n: (Call("verb", ("cancel", runs[n][0])), Call("complete", (runs[n][1],))),
    )
    for (run_id, _), (cancel, complete) in zip(runs, rounds, strict=True):
        assert cancel.won is not complete.won
        expected = "cancelled" if cancel.won else "completed"
        assert (cancel.error, complete.answer) in {(None, "stale"), ("TransitionNotAllowed", "recorded")}
        assert (rows.run(run_id).status, rows.states(run_id)) == (expected, {"a": expected})
        assert [rows.path(run_id)[-1], rows.path(run_id, "a")[-1]] == [expected] * 2
        assert rows.history(run_id)[-1].to_state == expected


def test_the_last_two_predecessors_of_a_join_dispatch_it_exactly_once(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """500 rounds: neither completion may believe that the other one will do it, nor both do it."""
    for _ in range(5):
        plan = [
            planned for n in range(100) for planned in (step(f"a{n}"), step(f"b{n}"), step(f"join{n}", f"a{n} b{n}"))
        ]
        worker.queue.clear()
        run_id = controller.enqueue_workflow(plan, task_description="x")
        pairs = [(worker.take(f"a{n}"), worker.take(f"b{n}")) for n in range(100)]
        rounds = racers.rounds(
            len(pairs),
            lambda n, pairs=pairs: tuple(Call("complete", (ref,), before=("claim", (ref,))) for ref in pairs[n]),
        )
        for n, (first, second) in enumerate(rounds):
            assert (first.answer, second.answer) == ("recorded", "recorded")
            join = rows.step(run_id, f"join{n}")
            assert [*first.sent, *second.sent] == [f"{join.id}.1"]
            assert (join.attempt, join.open_deps, join.status) == (1, 0, "pending")


def test_of_eight_workers_that_claim_one_step_one_gets_it(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    for number in range(30):
        worker.queue.clear()
        run_id = controller.enqueue_workflow(steps("a"), task_description="x")
        message = worker.take("a")
        refs = [replace(message, token=f"{number}-{n}") for n in range(8)]
        outcomes = racers.race(*(Call("claim", (ref,)) for ref in refs))
        winners = [ref.token for ref, outcome in zip(refs, outcomes, strict=True) if outcome.won]
        assert winners == [rows.step(run_id, "a").claim_token]
        assert rows.path(run_id, "a") == ["pending", "running"]


def test_of_two_resumes_one_resumes_and_dispatches(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    runs = []
    for _ in range(100):
        worker.queue.clear()
        run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
        controller.pause_workflow(run_id)
        runs.append(run_id)
    rounds = racers.rounds(len(runs), lambda n: (Call("verb", ("resume", runs[n])),) * 2)
    for run_id, outcomes in zip(runs, rounds, strict=True):
        assert Counter(outcome.error for outcome in outcomes) == {None: 1, "TransitionNotAllowed": 1}
        sent = sorted(rows.step(run_id, key).task_id for key in "ab")
        assert sorted(outcomes[0].sent + outcomes[1].sent) == sent
        assert rows.path(run_id)[-2:] == ["paused", "executing"]


def test_pause_racing_complete_loses_neither_the_result_nor_the_pause(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Paused first, the result is kept for the resume; completed first, what follows has not begun."""
    runs = [_claimed(controller, worker, step("a"), step("b", "a")) for _ in range(100)]
    rounds = racers.rounds(
        len(runs),
        lambda n: (Call("verb", ("pause", runs[n][0])), Call("complete", (runs[n][1],))),
    )
    for (run_id, ref), (pause, complete) in zip(runs, rounds, strict=True):
        assert pause.won
        assert complete.answer in ("deferred", "recorded")
        assert rows.run(run_id).status == "paused"
        deferred = complete.answer == "deferred"
        assert rows.states(run_id) == {"a": "paused" if deferred else "completed", "b": "pending"}
        controller.resume_workflow(run_id)
        assert rows.states(run_id) == {"a": "completed", "b": "pending"}
        assert rows.step(run_id, "a").result == {"token": ref.token}


def test_the_last_two_steps_that_complete_at_once_end_the_run_once(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """200 rounds: neither may leave the end to the other one, nor both make it."""
    runs = []
    for _ in range(200):
        run_id, first = _claimed(controller, worker, step("a"), step("b"))
        runs.append((run_id, first, worker.claim("b")))
    rounds = racers.rounds(
        len(runs),
        lambda n: (Call("complete", (runs[n][1],)), Call("complete", (runs[n][2],))),
    )
    for (run_id, *_), (first, second) in zip(runs, rounds, strict=True):
        assert (first.answer, second.answer) == ("recorded", "recorded")
        assert rows.states(run_id) == {"a": "completed", "b": "completed"}
        assert rows.path(run_id)[-2:] == ["executing", "completed"]


def test_a_retry_racing_the_last_success_is_refused_or_keeps_the_run_open(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """100 rounds: what the end has read of a failure that counts for nothing must not be old when it is written."""
    runs = []
    for _ in range(100):
        run_id, first = _claimed(controller, worker, step("a"), step("b", on_failure="continue"))
        worker.run_failing("b")
        runs.append((run_id, first))
    rounds = racers.rounds(
        len(runs),
        lambda n: (Call("retry", (runs[n][0], "b")), Call("complete", (runs[n][1],))),
    )
    for (run_id, _), (retry, complete) in zip(runs, rounds, strict=True):
        assert complete.answer == "recorded"
        expected = ("executing", "running") if retry.won else ("completed", "failed")
        assert (rows.run(run_id).status, rows.states(run_id)["b"]) == expected


def test_a_failure_racing_the_last_success_ends_the_run_once(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Whoever comes second finds the run ended, or ends it; a completed run never hides the failure."""
    runs = []
    for _ in range(100):
        run_id, first = _claimed(controller, worker, step("a"), step("b"))
        runs.append((run_id, first, worker.claim("b")))
    rounds = racers.rounds(
        len(runs),
        lambda n: (Call("fail", (runs[n][1],)), Call("complete", (runs[n][2],))),
    )
    for (run_id, *_), (failed, completed) in zip(runs, rounds, strict=True):
        assert failed.answer == "recorded"
        assert rows.run(run_id).status == "failed"
        expected = "completed" if completed.answer == "recorded" else "cancelled"
        assert rows.states(run_id) == {"a": "failed", "b": expected}


def test_eight_producers_with_one_idempotency_key_make_one_run(racers: Racers, rows: Rows) -> None:
    for number in range(20):
        outcomes = racers.race(*(Call("enqueue", (f"order-{number}",)),) * 8)
        (run_id,) = {outcome.answer for outcome in outcomes}
        assert run_id is not None
        assert [task_id for outcome in outcomes for task_id in outcome.sent] == [rows.step(run_id, "a").task_id]


def test_eight_sweepers_recover_a_dead_worker_once(
    racers: Racers,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    for _ in range(15):
        run_id, dead = _claimed(controller, worker, step("a", retry={"initial_delay_s": 0.0}))
        rows.make_due(run_id, "a", "lease_until")
        outcomes: list[Outcome] = racers.race(*(Call("sweep", ()),) * 8)
        recovered = rows.step(run_id, "a")  # and what earlier tests left may be due by now
        sent = [task_id for outcome in outcomes for task_id in outcome.sent if task_id.startswith(recovered.id)]
        assert sent == [recovered.task_id]
        assert rows.path(run_id, "a") == ["pending", "running", "failed", "running"]
        assert rows.step(run_id, "a").task_id != dead.task_id
