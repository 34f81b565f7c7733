"""A lost step is put down to the fault that hit its process, and to none where that is not certain."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .injection import Injected
from .ledger import Entry
from .recovery import Recoveries, recoveries
from .schedule import Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

NODE = "worker-1@localhost"
LOST_AT, AGAIN_AT = 30.0, 31.5


def _fault(kind: Kind, at: float, *pids: int, back_at: float | None = None) -> Injected:
    target, node = ("database", None) if kind is Kind.DATABASE else ("worker-1", NODE)
    return Injected(Fault(at, kind, target, 0.0, 0), at, node, frozenset(pids), back_at)


def _row(at: float, to_state: str, attempt: int, reason: str | None = None) -> Any:
    made: dict[str, Any] = {"created_at": datetime.fromtimestamp(at, UTC), "to_state": to_state, "attempt": attempt}
    return SimpleNamespace(**made, transition_reason=reason, entity_id="s", step_key="a", meta={"worker": NODE})


def _read(*injected: Injected, pid: int = 7, attempt: int = 1) -> Recoveries:
    """Of a step whose attempt 1 was lost at 30 s; its body, or that of another attempt, began at 10 s in process 7."""
    rows = [_row(9, "running", 1), _row(LOST_AT, "failed", 1, "worker lost"), _row(AGAIN_AT, "running", 2)]
    return recoveries(injected, [rows], {"s": [Entry("s", "r", attempt, "b", "begin", pid=pid, began_at=10.0)]})


def _seconds(found: Recoveries) -> Iterable[tuple[Kind, list[float]]]:
    return [(kind, values) for kind, values in found.seconds.items() if values]


def test_the_fault_that_killed_the_process_of_the_body_is_the_cause_whenever_it_was() -> None:
    child, later = _fault(Kind.CHILD, 12, 7), _fault(Kind.CHILD, 29, 8)
    found = _read(child, later)
    assert (_seconds(found), found.unexplained) == ([(Kind.CHILD, [AGAIN_AT - 12])], 0)


def test_a_fault_of_the_whole_worker_hits_each_of_its_processes() -> None:
    assert _seconds(_read(_fault(Kind.KILL, 25, 6, 7))) == [(Kind.KILL, [AGAIN_AT - 25])]


def test_a_worker_that_was_hit_in_another_process_is_not_the_cause() -> None:
    """Formerly it was, if it came within a minute: the database was away, and the lease ended."""
    found = _read(_fault(Kind.CHILD, 20, 8), _fault(Kind.DATABASE, 22))
    assert (_seconds(found), found.unexplained) == ([], 1)


def test_a_fault_before_the_body_or_behind_the_loss_is_not_the_cause() -> None:
    """A process that was frozen goes on, and takes another step."""
    assert _read(_fault(Kind.FREEZE, 5, 7), _fault(Kind.CHILD, 40, 7)) == Recoveries({}, 1)


def test_two_faults_of_one_process_explain_nothing() -> None:
    assert _read(_fault(Kind.FREEZE, 20, 7), _fault(Kind.CHILD, 26, 7)) == Recoveries({}, 1)


def test_an_attempt_whose_body_never_began_explains_nothing() -> None:
    assert _read(_fault(Kind.CHILD, 12, 7), attempt=2) == Recoveries({}, 1)


def test_of_a_server_and_an_engine_the_return_counts() -> None:
    rows = [_row(40, "completed", 1), _row(44, "completed", 1)]
    injected = [_fault(Kind.DATABASE, 35, back_at=39.5), _fault(Kind.ENGINE, 30, 9, back_at=31)]
    assert recoveries(injected, [rows], {}).seconds == {Kind.DATABASE: [0.5], Kind.ENGINE: [1.0]}
