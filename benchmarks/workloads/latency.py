"""How soon a committed change is heard, and how soon a ready step's body begins: alone, and under load."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from sqlalchemy import select

from benchmarks.competitors.interlock_steps import InterlockCompetitor
from benchmarks.deployment import KINDS, chain_of
from benchmarks.listener import READY
from benchmarks.measuring import Sample, percentile
from benchmarks.turns import turns
from interlock.core.database.tables import StateHistory, WorkflowStep
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.options import Options
    from benchmarks.site import Site
    from interlock.core.database.database import Database

__all__ = ["measure_latency"]

_history = StateHistory.__table__
_steps = WorkflowStep.__table__


@dataclass(frozen=True, slots=True)
class _Starts:
    """Milliseconds until bodies began: since what they waited for was recorded, and since they were claimed."""

    since_ready_ms: list[float]
    since_claim_ms: list[float]


def measure_latency(site: Site, options: Options) -> Iterator[Sample]:
    """Ages of events at a subscriber, and waits of steps, with one chain alone and with as many as the chains' measurement has."""
    sizes = options.sizes
    with ExitStack() as stack:
        ours = [stack.enter_context(InterlockCompetitor(site, kind, 2)) for kind in KINDS]
        for load, runs in (("alone", 1), ("loaded", sizes.chain_runs)):
            for number, competitor in turns(ours, options.rounds):
                ages_ms, starts = _listen(competitor, runs, sizes.chain_length)
                for workload, values in (
                    (f"events_{load}", ages_ms),
                    (f"start_{load}", starts.since_ready_ms),
                    (f"claim_{load}", starts.since_claim_ms),
                ):
                    yield Sample(workload, competitor.name, number, _percentiles(values))


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}_ms": percentile(values_ms, percent) for percent in (50, 95, 99)}


def _listen(competitor: InterlockCompetitor, runs: int, length: int) -> tuple[list[float], _Starts]:
    deployment = competitor.deployment
    with deployment.client() as client, _listener(deployment.broker_url, client.session_id, runs) as output:
        _, ids = competitor.run(client, [chain_of(length, "stamp")] * runs)
        ages_ms = json.loads(output.readline())
    expected = runs * (3 * length + 4)  # each step is stored, claimed and completed; a run has four states
    if len(ages_ms) != expected:
        msg = f"no result: {len(ages_ms)} of {expected} events were heard"
        raise AssertionError(msg)
    starts = [_starts(deployment.database, run_id) for run_id in ids]
    return ages_ms, _Starts(
        [wait for one in starts for wait in one.since_ready_ms],
        [wait for one in starts for wait in one.since_claim_ms],
    )


@contextmanager
def _listener(url: str, session_id: str, runs: int) -> Iterator[IO[str]]:
    """A subscriber that hears already; its output goes on with the ages."""
    command = [sys.executable, "-m", "benchmarks.listener", url, session_id, str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            output = process.stdout
            if output is None or output.readline().strip() != READY:
                msg = "the subscriber did not begin to hear"
                raise RuntimeError(msg)
            yield output
        finally:
            process.terminate()


def _starts(database: Database, run_id: str) -> _Starts:
    """A body's beginning is its step's result; what it waited for is in the history."""
    moves = select(_history.c.step_key, _history.c.to_state, _history.c.created_at).where(
        _history.c.workflow_id == run_id,
        _history.c.step_key.is_not(None),
    )
    bodies = select(_steps.c.result).where(_steps.c.run_id == run_id).order_by(_steps.c.position)
    with database.reading() as connection:
        times = {(row.step_key, row.to_state): row.created_at.timestamp() for row in connection.execute(moves)}
        begun = [row.result for row in connection.execute(bodies)]
    since_ready = [begun[n] - times[f"s{n - 1}", "completed"] for n in range(1, len(begun))]
    since_claim = [begun[n] - times[f"s{n}", "running"] for n in range(len(begun))]
    return _Starts([wait * 1000 for wait in since_ready], [wait * 1000 for wait in since_claim])
