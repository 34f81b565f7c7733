"""Does a worker grow? Many steps through one worker, and its memory looked at on the way."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import TYPE_CHECKING

from interlock import RetryPolicy, Step, Workflow
from tests.worker.deployment import task_name

from .measuring import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

__all__ = ["WIDTH", "Growth", "grow"]

WIDTH = 50
"""Steps of one workflow."""

_BRANCHES = 40
_AT_ONCE = 4
_WAIT_S = 120.0
_SAMPLES = 100
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Growth:
    """The memory of one process over its steps, warm-up left out.

    Attributes:
        first_mb: At the beginning: the median of the first tenth.
        least_mb: Least.
        most_mb: Most.
        slope_kb: What it grows by in 1,000 steps, fitted to all samples.
    """

    first_mb: float
    least_mb: float
    most_mb: float
    slope_kb: float

    @property
    def spread(self) -> float:
        """The largest distance from the beginning, as a share of it."""
        return max(self.most_mb - self.first_mb, self.first_mb - self.least_mb) / self.first_mb


def grow(
    deployment: Deployment,
    worker: CeleryWorker,
    *,
    steps: int,
    warm_up: int,
    say: Callable[[int, Mapping[str, int]], None],
) -> dict[str, Growth]:
    """Run `steps` steps, and return the growth of each process of the worker after the first `warm_up` of them.

    Args:
        deployment: Where; the worker consumes its default queue alone.
        worker: One that runs; its processes must not be replaced meanwhile.
        steps: How many.
        warm_up: How many of them are not looked at.
        say: Told of each sample.
    """
    samples: dict[str, list[tuple[int, float]]] = defaultdict(list)
    open_runs: deque[str] = deque()
    every = max((steps - warm_up) // _SAMPLES, WIDTH)
    enqueued, done, sample_at = 0, 0, warm_up
    while done < steps:
        while enqueued < steps and len(open_runs) < _AT_ONCE:
            open_runs.append(deployment.client.enqueue(_workflow()))
            enqueued += WIDTH
        run_id = open_runs.popleft()
        status = deployment.client.wait(run_id, timeout_s=_WAIT_S)
        if status != "completed":
            message = f"run {run_id} is {status}"
            raise RuntimeError(message)
        done += WIDTH
        if done >= sample_at:
            sample_at += every
            sizes = memory(worker)
            say(done, sizes)
            for name, size in sizes.items():
                samples[name].append((done, size / _MB))
    return {name: _growth(taken) for name, taken in samples.items()}


def _workflow() -> Workflow:
    """A fan-out, a join, a chain behind it, and in it a step that fails once: what steps do, in fifty of them."""
    total = task_name("total")
    root = Step("root", total, [[1, 2, 3]])
    branches = [Step(f"branch{number}", total, [[root.result, number]], after=root) for number in range(_BRANCHES)]
    join = Step("join", total, [[branch.result for branch in branches]], after=branches)
    policy = RetryPolicy(max_attempts=3, initial_delay_s=0.0)
    last = Step("flaky", task_name("flaky"), [2], after=join, retry=policy)
    tail = [last]
    for number in range(WIDTH - _BRANCHES - 3):
        last = Step(f"tail{number}", total, [[last.result]], after=last)
        tail.append(last)
    return Workflow("soak", "Fifty steps", [root, *branches, join, *tail])


def _growth(taken: Sequence[tuple[int, float]]) -> Growth:
    steps, sizes = zip(*taken, strict=True)
    slope = linear_regression(steps, sizes).slope
    first = median(sizes[: max(len(sizes) // 10, 1)])
    return Growth(round(first, 2), round(min(sizes), 2), round(max(sizes), 2), round(slope * 1000 * 1000, 1))
