"""Replays the history of one run through the transition tables, row by row: numbers, edges, and what may move when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, TABLES, WORKFLOW_TABLE

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Row

__all__ = ["Replay"]

_RUN: Final = WORKFLOW_TABLE.entity_type
_STATES: Final = {name: frozenset(str(state) for state in table.states) for name, table in TABLES.items()}
_FIRST: Final = {_RUN: WorkflowState.DRAFT.value, STEP_TABLE.entity_type: StepState.PENDING.value}
_EDGES: Final[Mapping[str, frozenset[tuple[str | None, str]]]] = {
    name: frozenset({(None, _FIRST[name]), *((str(source), str(target)) for source, target in table.edges())})
    for name, table in TABLES.items()
}
_NONE: Final[frozenset[tuple[str | None, str]]] = frozenset()
_ENDED: Final = frozenset(state.value for state in WORKFLOW_TABLE.terminal)
_MAY_RUN: Final = frozenset({WorkflowState.EXECUTING.value, *_ENDED, None})  # the ended have a finding of their own
_RUNNING: Final = StepState.RUNNING.value
_FAILED: Final = StepState.FAILED.value


class Replay:
    """What the history of a run says.

    Attributes:
        states: The state in which the history of each entity ends, by id.
        begun_late: Entities whose first row is not that of their creation: they are older than the history.
        attempts: The attempt at which each step was when it last moved.
        ever_failed: Steps that have been failed at some time.
        reported_by: For each step that an attempt completed, the id of that attempt.
        count: Rows replayed.
    """

    def __init__(self, run: Row[*tuple[Any, ...]], steps: Mapping[str, Row[*tuple[Any, ...]]]) -> None:
        self.states: dict[str, str] = {}
        self.begun_late: set[str] = set()
        self.ever_failed: set[str] = set()
        self.reported_by: dict[str, str] = {}
        self.count = 0
        self._run = run
        self._steps = steps
        self.attempts: dict[str, int] = {}
        self._last: Row[*tuple[Any, ...]] | None = None
        self._foreign = 0
        self._found: list[Finding] = []

    def findings(self, rows: Iterator[Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        """Replay the rows, which are in order of `seq`."""
        for row in rows:
            self.count += 1
            if self._is_usual(row):
                self._take(row)
                continue
            self._check_number(row)
            if self._is_known(row):
                self._check_edge(row)
                self._check_moment(row)
                self._take(row)
            yield from self._found
            self._found.clear()
        yield from self._end()

    def _is_usual(self, row: Row[*tuple[Any, ...]]) -> bool:
        """Whether the row is sound: all the checks below in one expression, because nearly all rows are."""
        _, seq, id_, at, kind, entity_id, session_id, source, target, _, attempt, by_revoker, _ = row
        last, states = self._last, self.states
        run_state = states.get(self._run.id)
        usual = (
            source == states.get(entity_id)
            and (source, target) in _EDGES.get(kind, _NONE)
            and (entity_id in self._steps if kind != _RUN else entity_id == self._run.id)
            and (seq == 1 if last is None else seq == last.seq + 1 and id_ > last.id and at >= last.created_at)
            and session_id == self._run.session_id
            and run_state not in _ENDED
            and (target != _RUNNING or run_state in _MAY_RUN or by_revoker)
            and (attempt is None or attempt >= self.attempts.get(entity_id, 0))
        )
        if usual:
            self._last = row
        return bool(usual)

    def _end(self) -> Iterator[Finding]:
        last = self._last.seq if self._last is not None else 0
        if self._run.seq != last:
            text = f"the run counts {self._run.seq} rows of history, and the last one has number {last}"
            yield Finding("seq_counter", self._run.id, "workflow", text)
        if self._foreign:
            text = f"{self._foreign} rows of state_history are of another session"
            yield Finding("foreign_session", self._run.id, "workflow", text)

    def _add(self, kind: str, row: Row[*tuple[Any, ...]], text: str) -> None:
        entity = "workflow" if row.entity_type == _RUN else row.step_key or row.entity_id
        self._found.append(Finding(kind, self._run.id, entity, text, row.seq))

    def _check_number(self, row: Row[*tuple[Any, ...]]) -> None:
        last, self._last = self._last, row
        before = 0 if last is None else last.seq
        if row.seq != before + 1:
            self._add("seq_gap", row, f"seq {row.seq} follows {before}")
        if last is not None and (row.id <= last.id or row.created_at < last.created_at):
            which = "id" if row.id <= last.id else "time"
            self._add("out_of_order", row, f"its {which} is before that of seq {last.seq}")
        if row.session_id != self._run.session_id:
            self._foreign += 1

    def _is_known(self, row: Row[*tuple[Any, ...]]) -> bool:
        there = row.entity_id == self._run.id if row.entity_type == _RUN else row.entity_id in self._steps
        if there and row.entity_type in TABLES:
            return True
        self._add("unknown_entity", row, f"a row of {row.entity_type} {row.entity_id}, which is not there")
        return False

    def _check_edge(self, row: Row[*tuple[Any, ...]]) -> None:
        source, target, before = row.from_state, row.to_state, self.states.get(row.entity_id)
        if source != before:
            if before is not None:
                text = f"{source or 'nothing'} → {target} follows a row that ended in {before}"
                self._add("broken_chain", row, text)
            else:
                self.begun_late.add(row.entity_id)
        if (source, target) in _EDGES[row.entity_type]:
            return
        known = _STATES[row.entity_type]
        if target not in known or not (source is None or source in known):
            self._add("unknown_state", row, f"{source} → {target}: there is no such state")
        else:
            self._add("illegal_edge", row, f"{source or 'nothing'} → {target} is not in the table")

    def _check_moment(self, row: Row[*tuple[Any, ...]]) -> None:
        run_state = self.states.get(self._run.id)
        if run_state in _ENDED:
            self._add("after_the_end", row, f"moved to {row.to_state} after the workflow was {run_state}")
        if row.attempt is None:
            return
        # A step that somebody else revoked runs for no more than the moment that its pause or end takes.
        if row.to_state == _RUNNING and run_state not in _MAY_RUN and not row.by_revoker:
            self._add("started_while_not_executing", row, f"ran while the workflow was {run_state}")
        if row.attempt < self.attempts.get(row.entity_id, 0):
            text = f"attempt {row.attempt} follows attempt {self.attempts[row.entity_id]}"
            self._add("attempt_goes_back", row, text)

    def _take(self, row: Row[*tuple[Any, ...]]) -> None:
        self.states[row.entity_id] = row.to_state
        if row.attempt is not None:
            self.attempts[row.entity_id] = row.attempt
        if row.to_state == _FAILED:
            self.ever_failed.add(row.entity_id)
        if row.reported_by is not None:
            self.reported_by[row.entity_id] = row.reported_by
