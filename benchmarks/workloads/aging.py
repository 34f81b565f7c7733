"""What a transition costs when the history is old and long: PostgreSQL with 10,000, 1,000,000 and 5,000,000 rows."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

import psycopg

from benchmarks.deployment import Deployment, chain_of, check_runs, fan_out_of
from benchmarks.measuring import Sample
from benchmarks.options import Sizes
from benchmarks.turns import turns
from interlock.core import StateMachine
from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.options import Options
    from benchmarks.site import Site

__all__ = ["measure_aging"]

ROUNDS = 5
"""At least: what is compared differs by microseconds."""

FIGURES = ("transition_ms", "claim_ms", "complete_ms", "read_ms")

_SLICE = 5
_ROWS_OF_A_RUN = 200
_steps = table_of_model(WorkflowStep)

_RUNS = """
    INSERT INTO workflow_runs (id, session_id, name, task_description, status, seq, created_at, started_at, completed_at)
    SELECT gen_random_uuid(), 'old', 'generated', 'an old run', 'completed', %(rows_of_a_run)s, at, at, at + interval '9 s'
    FROM (SELECT clock_timestamp() - n * interval '1 minute' AS at FROM generate_series(%(runs)s, 1, -1) AS n) AS times
"""
# Three rows a step, as a step has that went well; the ids are as random as real ones, which is what an index feels.
_HISTORY = """
    INSERT INTO state_history (entity_type, entity_id, session_id, workflow_id, seq, from_state, to_state,
                               transition_reason, transitioned_by, step_key, attempt, created_at)
    SELECT 'workflow_step', md5(run.id::text || n / 3)::uuid, run.session_id, run.id, n + 1,
           (ARRAY[NULL, 'pending', 'running'])[n %% 3 + 1], (ARRAY['pending', 'running', 'completed'])[n %% 3 + 1],
           'claimed', 'worker@example', 's' || n / 3, 1, run.created_at + n * interval '40 ms'
    FROM workflow_runs AS run, generate_series(0, %(rows_of_a_run)s - 1) AS n
    ORDER BY run.created_at, n
"""


def measure_aging(site: Site, options: Options) -> Iterator[Sample]:
    """Transitions, claims, completions and readings of history, in turns over the databases, warmed up before."""
    rounds = max(ROUNDS, options.rounds) if options.sizes == Sizes() else options.rounds
    length = options.sizes.chain_length
    with ExitStack() as stack:
        aged = [_aged(stack.enter_context(Deployment(site, "PostgreSQL")), rows) for rows in options.sizes.history]
        for number in range(rounds + 1):
            taken = _round(aged, length)
            for one in aged if number else ():  # the first is the warm-up
                medians = {name: statistics.median(values) for name, values in taken[one.rows].items()}
                yield Sample("aging", f"{one.rows:,} rows", number, medians)


@dataclass(frozen=True, slots=True)
class _Aged:
    """A database with so many rows of history."""

    deployment: Deployment
    rows: int


def _aged(deployment: Deployment, rows: int) -> _Aged:
    """Fill a database; it is not the filling that is measured, so nothing of it waits for the disk."""
    values = {"rows_of_a_run": _ROWS_OF_A_RUN, "runs": max(1, rows // _ROWS_OF_A_RUN)}
    url = deployment.url.replace("postgresql+psycopg:", "postgresql:", 1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(_RUNS, values)
        connection.execute(_HISTORY, values)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return _Aged(deployment, rows)


def _round(aged: Sequence[_Aged], length: int) -> dict[int, dict[str, list[float]]]:
    """Take turns after every few transactions: a second of somebody else's work on the machine must hit all alike."""
    subjects = [_Subject(one.deployment, length) for one in aged]
    for _, subject in turns(subjects, ceil(length / _SLICE)):
        subject.work(_SLICE)
    return {one.rows: subject.finish() for one, subject in zip(aged, subjects, strict=True)}


class _Subject:
    """One database in one round: a chain that is worked through as a worker does it, and a run that is moved to and fro."""

    def __init__(self, deployment: Deployment, length: int) -> None:
        self._deployment = deployment
        self._length = length
        with deployment.client() as client:
            self._chain_id = client.enqueue(chain_of(length))
            self._moved_id = client.enqueue(fan_out_of(2, joined=False))
        ids = _steps.select().with_only_columns(_steps.c.id).where(_steps.c.run_id == self._chain_id)
        with deployment.database.reading() as connection:
            self._step_ids = iter(list(connection.scalars(ids.order_by(_steps.c.position))))
        self._attempts = Attempts(deployment.database, Settings())
        self._taken_ms: dict[str, list[float]] = {name: [] for name in FIGURES}

    def work(self, steps: int) -> None:
        """Claim, complete and read so many steps; as many moves by `StateMachine.transition_to`, each its own transaction."""
        with self._deployment.database.session() as session:
            reader, mover = StateMachine(session, "workflow_step"), StateMachine(session, "workflow_run")
            for step_id in islice(self._step_ids, steps):
                ref = AttemptRef(self._chain_id, step_id, f"{step_id}.1", "benchmark")
                self._time("claim_ms", partial(self._attempts.claim, ref, "worker@benchmark"))
                self._time("complete_ms", partial(self._attempts.complete, ref, None))
                self._time("read_ms", partial(reader.get_state_history, step_id))
                for state in ("paused", "executing"):
                    self._time("transition_ms", partial(mover.transition_to, self._moved_id, state))

    def _time(self, figure: str, call: Callable[[], object]) -> None:
        begun = time.perf_counter()
        call()
        self._taken_ms[figure].append((time.perf_counter() - begun) * 1000)

    def finish(self) -> dict[str, list[float]]:
        """Replay what was done, and return the milliseconds."""
        check_runs(self._deployment.database, [self._chain_id], steps=self._length)
        check_runs(self._deployment.database, [self._moved_id], steps=2, status="executing")
        return self._taken_ms
