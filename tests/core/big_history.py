"""A database of any size, written by set-based SQL: plausible runs, each with a full and legal history.

Every run is a chain of ten steps that has ended in one of three ways: completed; failed at its fifth step, the rest
cancelled; completed with its third step tried twice. Ids are scattered, as those of real runs are.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from interlock.core import Database

__all__ = ["fill"]

STEPS: Final = 10
FAILS_AT: Final = 5
RETRIED: Final = 3
FATES: Final = ("completed", "failed", "retried")

_Move = tuple[int, str | None, str, int]  # step (0: the run), from, to, attempt


def _moves(fate: str) -> Iterator[_Move]:
    """The history of one run."""
    yield from ((0, None, "draft", 0), (0, "draft", "planning", 0))
    yield from ((step, None, "pending", 0) for step in range(1, STEPS + 1))
    yield 0, "planning", "executing", 0
    for step in range(1, STEPS + 1):
        yield step, "pending", "running", 1
        if fate == "failed" and step == FAILS_AT:
            yield step, "running", "failed", 1
            yield from ((later, "pending", "cancelled", 0) for later in range(step + 1, STEPS + 1))
            yield 0, "executing", "failed", 0
            return
        if fate == "retried" and step == RETRIED:
            yield from ((step, "running", "failed", 1), (step, "failed", "running", 1))
        yield step, "running", "completed", 2 if fate == "retried" and step == RETRIED else 1
    yield 0, "executing", "completed", 0


def fill(database: Database, rows: int) -> int:
    """Fill an empty, migrated database with runs that have `rows` rows of history in all, or a few more; returns how many."""
    lengths = [len(list(_moves(fate))) for fate in FATES]
    runs = total = 0
    for length in cycle(lengths):
        if total >= rows:
            break
        runs, total = runs + 1, total + length
    with database.engine.begin() as connection:
        _Filling(connection, sqlite=database.dialect == "sqlite").write(runs)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return total


class _Filling:
    """The statements, in the words of one kind of database."""

    def __init__(self, connection: Connection, *, sqlite: bool) -> None:
        self._connection = connection
        self._sqlite = sqlite

    def write(self, runs: int) -> None:
        self._template()
        self._numbers(runs)
        self._entities()
        if not self._sqlite:
            self._history()
            return
        # It looks for each new row whether there is one: half of the time, and these have numbers of their own.
        trigger = self._connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'state_history_no_replace'"))
        self._do("DROP TRIGGER state_history_no_replace")
        self._history()
        self._do(str(trigger))

    def _id(self, number: str, step: str) -> str:
        scattered = f"({number} * 2654435761) % 4294967296"
        if self._sqlite:
            return f"printf('%08x-0000-4000-8000-%012x', {scattered}, {step})"
        hexadecimal = f"lpad(to_hex({scattered}), 8, '0') || '-0000-4000-8000-' || lpad(to_hex({step}), 12, '0')"
        return f"CAST({hexadecimal} AS uuid)"

    def _time(self, seconds: str) -> str:
        if self._sqlite:
            return f"strftime('%Y-%m-%d %H:%M:%f000', '2026-01-01', ({seconds}) || ' seconds')"
        return f"(timestamptz '2026-01-01 00:00:00+00' + ({seconds}) * interval '1 second')"

    def _json(self, *pairs: str) -> str:
        return f"json_object({', '.join(pairs)})" if self._sqlite else f"jsonb_build_object({', '.join(pairs)})"

    def _do(self, statement: str, *values: dict[str, object]) -> None:
        self._connection.execute(text(statement), list(values) or None)

    def _template(self) -> None:
        """What happens in a run of each fate, and how each of its steps and it itself ends."""
        self._do("CREATE TEMP TABLE moves (fate int, seq int, step int, source text, target text, attempt int)")
        self._do("CREATE TEMP TABLE ends (fate int, step int, status text, attempt int, total int)")
        for fate, name in enumerate(FATES):
            moves = list(_moves(name))
            rows = [
                {"f": fate, "n": seq, "k": step, "a": source, "b": target, "c": attempt}
                for seq, (step, source, target, attempt) in enumerate(moves, start=1)
            ]
            self._do("INSERT INTO moves VALUES (:f, :n, :k, :a, :b, :c)", *rows)
            last = {step: (target, attempt) for step, _, target, attempt in moves}
            ends = [
                {"f": fate, "k": step, "b": target, "c": attempt, "n": len(moves)}
                for step, (target, attempt) in last.items()
            ]
            self._do("INSERT INTO ends VALUES (:f, :k, :b, :c, :n)", *ends)

    def _numbers(self, runs: int) -> None:
        series = (
            f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {runs}) SELECT n FROM s"
            if self._sqlite
            else f"SELECT CAST(n AS bigint) AS n FROM generate_series(1, {runs}) AS n"
        )
        self._do(f"CREATE TEMP TABLE numbers AS {series}")

    def _entities(self) -> None:
        begin, end = self._time("n * 60"), self._time("n * 60 + 59")
        self._do(
            "INSERT INTO workflow_runs (id, session_id, name, task_description, status, seq, created_at, started_at,"
            " completed_at) "
            f"SELECT {self._id('n', '0')}, 'default', 'big', 'fill a database', status, total, {begin}, {begin}, {end} "
            f"FROM numbers JOIN ends ON ends.fate = (n - 1) % {len(FATES)} AND step = 0"
        )
        step_id = self._id("n", "step")
        task_id = f"CASE WHEN attempt > 0 THEN {self._text(step_id)} || '.' || attempt END"
        result = f"CASE WHEN status = 'completed' THEN {self._json(quoted('ok'), '1')} END"
        self._do(
            "INSERT INTO workflow_steps (id, run_id, session_id, key, position, status, task, spec, result, attempt,"
            " task_id, created_at, started_at, completed_at) "
            f"SELECT {step_id}, {self._id('n', '0')}, 'default', 'step-' || step, step, status, 'shop.work',"
            f" {self._json(quoted('queue'), quoted('big'))}, {result}, attempt, {task_id}, {begin}, {begin}, {end} "
            f"FROM numbers JOIN ends ON ends.fate = (n - 1) % {len(FATES)} AND step > 0"
        )
        self._do(
            "INSERT INTO step_dependencies (upstream_id, step_id, run_id) "
            f"SELECT {self._id('n', 'step - 1')}, {step_id}, {self._id('n', '0')} "
            f"FROM numbers JOIN ends ON ends.fate = (n - 1) % {len(FATES)} AND step > 1"
        )

    def _history(self) -> None:
        entity_id = self._id("n", "step")
        reported = self._json(quoted("task_id"), f"{self._text(entity_id)} || '.' || attempt")
        self._do(
            "INSERT INTO state_history (entity_type, entity_id, session_id, workflow_id, seq, from_state, to_state,"
            " transition_reason, transitioned_by, step_key, attempt, created_at, meta) "
            f"SELECT CASE WHEN step = 0 THEN 'workflow_run' ELSE 'workflow_step' END, {entity_id}, 'default',"
            f" {self._id('n', '0')}, seq, source, target, 'as planned', 'worker@big',"
            " CASE WHEN step > 0 THEN 'step-' || step END, CASE WHEN step > 0 THEN attempt END,"
            f" {self._time('n * 60 + seq')}, CASE WHEN step > 0 AND target = 'completed' THEN {reported} END "
            f"FROM numbers JOIN moves ON moves.fate = (n - 1) % {len(FATES)} ORDER BY n, seq"
        )

    def _text(self, expression: str) -> str:
        return f"CAST({expression} AS text)"


def quoted(word: str) -> str:
    """A word as SQL."""
    return f"'{word}'"
