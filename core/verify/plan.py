"""Checks the plan of a run: counts again what each step waits for, and whether it was right to start or to skip it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.readiness import DependencyCounts, Readiness, Trigger, readiness
from interlock.core.model.states import StepState, WorkflowState

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy import Row

__all__ = ["Plan"]

_PENDING: Final = StepState.PENDING.value
_RUNNING: Final = StepState.RUNNING.value
_WAITING: Final = StepState.WAITING_APPROVAL.value
_COMPLETED: Final = StepState.COMPLETED.value
_FAILED: Final = StepState.FAILED.value
_SKIPPED: Final = StepState.SKIPPED.value
_EXECUTING: Final = WorkflowState.EXECUTING.value
_ENDED: Final = frozenset({WorkflowState.COMPLETED.value, WorkflowState.FAILED.value, WorkflowState.CANCELLED.value})
_COUNTED: Final = frozenset({_EXECUTING, WorkflowState.WAITING_APPROVAL.value})
"""States of a run in which every step that settles is counted at once; while paused, the resume does it."""


class _Waits:
    """What a step waits for: how its dependencies, or its items, stand."""

    __slots__ = ("failed", "failed_once", "open", "total", "unmet")

    def __init__(self) -> None:
        self.total = self.open = self.unmet = self.failed = 0
        self.failed_once = False

    def add(self, status: str, *, settled: bool, failed_once: bool) -> None:
        self.total += 1
        if not settled:
            self.open += 1
        elif status != _COMPLETED:
            self.unmet += 1
            self.failed += status == _FAILED
        # One that a person tried again or settled by hand has been failed, and settled, for those who started then.
        self.failed_once |= failed_once

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.open, self.unmet, self.failed


class Plan:
    """The steps and edges of one run."""

    def __init__(
        self,
        run: Row[*tuple[Any, ...]],
        steps: Mapping[str, Row[*tuple[Any, ...]]],
        settled: frozenset[str],
        ever_failed: Collection[str],
    ) -> None:
        self._run = run
        self._steps = steps
        self._settled = settled
        self._ever_failed = ever_failed
        self._waits: dict[str, _Waits] = defaultdict(_Waits)
        self._items: dict[str, _Waits] = defaultdict(_Waits)
        self._edges: list[tuple[str, str]] = []

    def findings(self, dependencies: Iterator[Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        """Read the edges, and check everything that follows from them."""
        yield from self._read(dependencies)
        yield from self._cycle()
        yield from self._sums()
        for row in self._steps.values():
            yield from self._right_to_start(row)
            if self._run.status in _COUNTED:
                yield from self._counts(row)
        if self._run.status == _EXECUTING:
            yield from self._forgotten()

    def _of(self, row: Row[*tuple[Any, ...]], kind: str, text: str) -> Finding:
        return Finding(kind, self._run.id, row.key, text)

    def _of_run(self, kind: str, text: str) -> Finding:
        return Finding(kind, self._run.id, "workflow", text)

    def _read(self, dependencies: Iterator[Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        live = self._run.status not in _ENDED
        for _, step_id, upstream_id in dependencies:
            step, upstream = self._steps.get(step_id), self._steps.get(upstream_id)
            if step is None or upstream is None:
                text = f"step {step_id} waits for {upstream_id}, and they are not both of this run"
                yield self._of_run("foreign_dependency", text)
                continue
            waits = self._items if upstream.parent_id == step_id else self._waits
            waits[step_id].add(
                upstream.status, settled=upstream_id in self._settled, failed_once=upstream_id in self._ever_failed
            )
            if live:
                self._edges.append((upstream_id, step_id))

    def _cycle(self) -> Iterator[Finding]:
        """Take away, again and again, what waits for nothing that is left; what remains waits for itself."""
        dependents: dict[str, list[str]] = defaultdict(list)
        waiting = Counter(step_id for _, step_id in self._edges)
        for upstream_id, step_id in self._edges:
            dependents[upstream_id].append(step_id)
        free = [step_id for step_id in dependents if not waiting[step_id]]
        while free:
            for step_id in dependents.pop(free.pop(), ()):
                waiting[step_id] -= 1
                if not waiting[step_id]:
                    free.append(step_id)
        remaining = sorted(self._steps[step_id].key for step_id, count in waiting.items() if count)
        if remaining:
            yield self._of_run(
                "dependency_cycle", f"these wait for each other, or for one that does: {', '.join(remaining)}"
            )

    def _sums(self) -> Iterator[Finding]:
        if not self._run.seq:
            return  # older than the history: nothing has been counted yet
        still_open = len(self._steps) - len(self._settled)
        if self._run.open_steps != still_open:
            text = f"open_steps is {self._run.open_steps}, and {still_open} steps are not settled"
            yield self._of_run("open_steps", text)
        waiting = sum(row.status == _WAITING for row in self._steps.values())
        if self._run.waiting_steps != waiting:
            yield self._of_run("waiting_steps", f"waiting_steps is {self._run.waiting_steps}, and {waiting} steps wait")

    def _counts(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        if row.status == _PENDING and row.attempt == 0:
            waits = self._waits.get(row.id) or _Waits()
        elif row.status == _RUNNING and row.is_mapped:
            waits = self._items.get(row.id) or _Waits()
        else:
            return
        stored = (row.open_deps, row.unmet_deps, row.failed_deps)
        if stored != waits.counts:
            text = f"(open, unmet, failed) is {stored}, and should be {waits.counts}"
            yield self._of(row, "dependency_counts", text)

    def _right_to_start(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        """Compare each started or skipped step with its trigger.

        A dependency that had failed once, and was tried again or settled by hand since, excuses a start or a skip.
        """
        if not row.attempt and row.status != _SKIPPED:
            return
        waits = self._waits.get(row.id) or _Waits()
        counts = DependencyCounts(open=waits.open, unmet=waits.unmet, failed=waits.failed)
        trigger: Trigger = row.trigger or "all_completed"
        right = readiness(trigger, counts) is Readiness.START
        excused = waits.failed_once
        ends = f"of its {waits.total} dependencies {waits.open} are open, {waits.unmet} unmet, {waits.failed} failed"
        if row.attempt and not right and not (excused and trigger != "all_completed"):
            yield self._of(row, "wrong_start", f"has started by {trigger}, and {ends}")
        elif row.status == _SKIPPED and right and not row.is_conditional and not excused:
            yield self._of(row, "wrong_skip", f"was skipped, it starts by {trigger}, and {ends}")

    # --- nothing unsettled is forgotten

    def _forgotten(self) -> Iterator[Finding]:
        unsettled = [row for row in self._steps.values() if row.id not in self._settled]
        if not unsettled:
            yield self._of_run("forgotten", "executes, and every step is settled")
        keeping = Counter(row.parent_id for row in unsettled if row.task_id is not None or row.has_retry_at)
        for row in unsettled:
            if not (
                row.has_due_at or self._waits_for_steps(row) or _waits_for_people(row) or self._is_full(row, keeping)
            ):
                text = f"is {row.status} with no lease, timer, dependency or person to wait for"
                yield self._of(row, "forgotten", text)

    def _waits_for_steps(self, row: Row[*tuple[Any, ...]]) -> bool:
        if row.status == _PENDING:
            waits = self._waits.get(row.id) or _Waits()
            counts = DependencyCounts(open=waits.open, unmet=waits.unmet, failed=waits.failed)
            return readiness(row.trigger or "all_completed", counts) is Readiness.WAIT
        return bool(row.is_mapped and row.id in self._items and self._items[row.id].open > 0)

    def _is_full(self, row: Row[*tuple[Any, ...]], keeping: Counter[str | None]) -> bool:
        """Whether a limit on parallel work keeps a ready step from starting, and somebody is there to give up a place."""
        if row.status != _PENDING or row.attempt:
            return False
        limit, siblings = self._run.max_parallel, row.siblings_limit
        full = limit is not None and keeping.total() >= limit
        return full or (siblings is not None and keeping[row.parent_id] >= siblings)


def _waits_for_people(row: Row[*tuple[Any, ...]]) -> bool:
    return row.status == _WAITING or row.paused_by is not None
