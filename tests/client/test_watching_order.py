"""What a watch decides, without Redis, database or time: every change once and in order, whatever is lost on the way."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from interlock.client.catch_up import Listen, Read, RunWatch, UnknownPosition, WatchTimeout
from interlock.client.session_catch_up import SessionWatch
from interlock.core.errors import CommandTimeout, DatabaseBusy, RunNotFound
from interlock.core.history import PAGE, RunHead, SessionHeads
from interlock.signals.subscriber import Link
from tests.signals.scripts import change, run_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.events import StateChange

_START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass
class World:
    """The committed history of some runs, a clock, and a reader that may be out of order."""

    now: float = 1000.0
    committed: dict[str, list[StateChange]] = field(default_factory=dict)
    reads: int = 0
    broken: bool = False
    page: int = PAGE

    def clock(self) -> float:
        return self.now

    def fetch(self, after_seq: int) -> list[StateChange]:
        """The only run's history."""
        return self.changes(*self.committed, after_seq=after_seq)

    # the session's reader

    def changes(self, workflow_id: str, after_seq: int = 0) -> list[StateChange]:
        self._count()
        return self.committed[workflow_id][after_seq : after_seq + self.page]

    def head(self, workflow_id: str) -> RunHead | None:
        self._count()
        changes = self.committed[workflow_id]
        return RunHead(len(changes), changes[-1].created_at if _over(changes) else None) if changes else None

    def heads(self, *, created_after: datetime | None = None, ended_after: datetime | None = None) -> SessionHeads:
        self._count()
        found = {
            workflow_id: len(changes)
            for workflow_id, changes in self.committed.items()
            if changes and (not _over(changes) or _within(changes, created_after, ended_after))
        }
        return SessionHeads(at=self.time(), seqs=found)

    def time(self) -> datetime:
        return _START + timedelta(seconds=self.now)

    def _count(self) -> None:
        self.reads += 1
        if self.broken:
            raise DatabaseBusy


def _over(changes: list[StateChange]) -> bool:
    return changes[-1].to_state == "completed"


def _within(changes: list[StateChange], created_after: datetime | None, ended_after: datetime | None) -> bool:
    created, ended = changes[0].created_at, changes[-1].created_at
    assert created is not None
    assert ended is not None
    return created_after is not None and ended_after is not None and created > created_after and ended > ended_after


def settle(plan: RunWatch | SessionWatch, got: list[StateChange]) -> Listen | None:
    """Do what the plan asks for until it wants to listen, or is done; collect what it gives out."""
    for _ in range(1000):
        got += plan.take()
        action = plan.next_action()
        if not isinstance(action, Read):
            return action
        try:
            answer = action.ask()
        except DatabaseBusy as error:
            plan.read_failed(error)
        else:
            action.tell(answer)
    pytest.fail("it reads and reads")


def run_world(length: int, committed: int | None = None, **options: Any) -> tuple[World, list[StateChange]]:
    """A world with one run of `length` changes, of which `committed` are in the history."""
    changes = run_of(length)
    return World(committed={"run": changes[:committed]}, **options), changes


def watch_of(world: World, **options: Any) -> RunWatch:
    return RunWatch(world.fetch, clock=world.clock, **options)


def seqs(changes: list[StateChange]) -> list[int]:
    return [each.seq for each in changes]


# any interleaving


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(1, 4)),
        st.tuples(st.just("hear"), st.integers(0, 30)),
        st.tuples(st.just("hear newest"), st.just(0)),
        st.tuples(st.just("link"), st.sampled_from(list(Link))),
        st.tuples(st.just("pass"), st.floats(0, 6)),
        st.tuples(st.just("break"), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_EVENTS, st.integers(1, 30), st.integers(0, 30), st.sampled_from([2, 3, PAGE]))
def test_any_interleaving_of_lost_repeated_and_reordered_messages_gives_each_change_once_in_order(
    events: list[tuple[str, Any]], length: int, after_seq: int, page: int
) -> None:
    after_seq = min(after_seq, length)
    world, changes = run_world(length, max(after_seq, 1), page=page)
    watch, got = watch_of(world, after_seq=after_seq), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)
    for kind, value in events:
        happen(world, watch, changes, kind, value)
        settle(watch, got)
        assert seqs(got) == list(range(after_seq + 1, after_seq + 1 + len(got)))

    world.broken = False
    world.committed["run"] = changes
    for _ in range(2 * length + 3):  # polls alone bring the rest, a page at a time
        world.now += 5
        settle(watch, got)
    assert got == changes[after_seq:]
    assert watch.next_action() is None


def happen(world: World, watch: RunWatch, changes: list[StateChange], kind: str, value: Any) -> None:
    committed = world.committed["run"]
    match kind:
        case "commit":
            world.committed["run"] = changes[: len(committed) + value]
        case "hear":
            watch.heard(committed[value % len(committed)])
        case "hear newest":
            watch.heard(committed[-1])
        case "link":
            watch.heard(value)
        case "pass":
            world.now += value
        case "break":
            world.broken = value


_SESSION_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("hear"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("link"), st.just(0), st.sampled_from(list(Link))),
        st.tuples(st.just("pass"), st.just(0), st.floats(0.001, 20)),
        st.tuples(st.just("break"), st.just(0), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_SESSION_EVENTS, st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_a_session_gives_what_is_committed_after_its_beginning_once_and_in_order_within_each_run(
    events: list[tuple[str, int, Any]], before: list[int]
) -> None:
    world = World(committed={str(n): [] for n in range(4)})
    for n, count in enumerate(before):
        commit(world, n, count)
    world.now += 1
    watch, got = SessionWatch(world, clock=world.clock), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)
    for kind, n, value in events:
        world.now += 0.001
        if kind == "commit":
            commit(world, n, value)
        elif kind == "hear" and world.committed[str(n)]:
            watch.heard(world.committed[str(n)][value % len(world.committed[str(n)])])
        elif kind == "link":
            watch.heard(value)
        elif kind == "pass":
            world.now += value
        elif kind == "break":
            world.broken = value
        settle(watch, got)

    world.broken = False
    for _ in range(3):
        world.now += 5
        settle(watch, got)
    for n, count in enumerate(before):
        mine = [each.seq for each in got if each.workflow_id == str(n)]
        assert mine == list(range(count + 1, len(world.committed[str(n)]) + 1))


def commit(world: World, n: int, count: int) -> None:
    """Commit up to `count` changes of a run of six, each a little later than the one before."""
    changes = world.committed[str(n)]
    for seq in range(len(changes) + 1, min(len(changes) + count, 6) + 1):
        world.now += 0.001
        end = {"to_state": "completed", "entity_type": "workflow_run"} if seq == 6 else {}
        changes.append(change(seq, workflow_id=str(n), created_at=world.time(), **end))


# one run


def test_nothing_is_read_before_the_subscription_stands() -> None:
    world, _ = run_world(3)
    watch, got = watch_of(world), []

    assert settle(watch, got) == Listen(1.0)
    assert world.reads == 0
    watch.heard(Link.SUBSCRIBED)
    assert settle(watch, got) is None
    assert seqs(got) == [1, 2, 3]


def test_history_is_read_although_no_subscription_comes_about() -> None:
    world, _ = run_world(3)
    watch, got = watch_of(world), []
    world.now += 1.0

    assert settle(watch, got) is None
    assert seqs(got) == [1, 2, 3]


def test_a_message_in_turn_goes_out_without_a_reading() -> None:
    world, changes = run_world(5, 2)
    watch, got = watch_of(world), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)
    reads = world.reads

    for each in changes[2:]:
        watch.heard(each)

    assert settle(watch, got) is None
    assert seqs(got) == [1, 2, 3, 4, 5]
    assert world.reads == reads


def test_a_repeated_message_is_dropped_and_no_reason_to_read() -> None:
    world, changes = run_world(6, 3)
    watch, got = watch_of(world), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)

    for each in [*changes[:3], *changes[:3]]:
        watch.heard(each)
    assert settle(watch, got) == Listen(5.0)
    assert (seqs(got), world.reads) == ([1, 2, 3], 1)


def test_a_gap_is_read_after_a_moment_in_which_the_late_message_may_come() -> None:
    world, changes = run_world(6, 2)
    watch, got = watch_of(world), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)
    reads = world.reads
    world.committed["run"] = changes[:5]

    watch.heard(changes[4])
    waiting = settle(watch, got)
    assert (seqs(got), world.reads) == ([1, 2], reads)
    assert waiting is not None
    assert waiting.timeout_s <= 0.05
    world.now += waiting.timeout_s
    settle(watch, got)
    assert (seqs(got), world.reads) == ([1, 2, 3, 4, 5], reads + 1)


def test_a_gap_that_the_history_does_not_fill_is_not_read_in_a_hot_loop() -> None:
    world, changes = run_world(6, 2)
    watch, got = watch_of(world), []
    watch.heard(changes[4])
    world.now += 1

    assert settle(watch, got) == Listen(1.0)


def test_quiet_is_ended_by_a_reading_sooner_while_redis_is_away() -> None:
    world, _ = run_world(6, 2)
    watch, got = watch_of(world, poll_s=5.0), []
    watch.heard(Link.SUBSCRIBED)
    assert settle(watch, got) == Listen(5.0)
    watch.heard(Link.LOST)
    assert settle(watch, got) == Listen(1.0)
    watch.heard(Link.SUBSCRIBED)
    assert settle(watch, got) == Listen(5.0)
    assert world.reads == 3


def test_a_long_history_is_read_in_pages_that_are_given_out_one_by_one() -> None:
    world, changes = run_world(2 * PAGE + 10)
    watch, got = watch_of(world), []
    watch.heard(Link.SUBSCRIBED)

    first = watch.next_action()
    assert isinstance(first, Read)
    first.tell(first.ask())
    assert len(watch.take()) == PAGE
    settle(watch, got)
    assert (got, world.reads) == (changes[PAGE:], 3)


@pytest.mark.parametrize("after_seq", [0, 2, 3])
def test_the_watch_of_a_run_that_is_over_ends_without_waiting(after_seq: int) -> None:
    world, changes = run_world(3)
    watch, got = watch_of(world, after_seq=after_seq), []
    watch.heard(Link.SUBSCRIBED)

    assert settle(watch, got) is None
    assert got == changes[after_seq:]


def test_a_position_that_the_history_does_not_have_is_refused() -> None:
    world, _ = run_world(3)
    watch = watch_of(world, after_seq=5)
    watch.heard(Link.SUBSCRIBED)

    with pytest.raises(UnknownPosition) as caught:
        settle(watch, [])
    assert pickle.loads(pickle.dumps(caught.value)).after_seq == 5  # noqa: S301 - our own error


def test_the_time_that_was_given_ends_a_watch_but_not_before_one_reading() -> None:
    world, _ = run_world(6, 2)
    watch, got = watch_of(world, timeout_s=0.0), []

    with pytest.raises(WatchTimeout) as caught:
        settle(watch, got)
    assert (seqs(got), world.reads) == ([1, 2], 1)
    assert pickle.loads(pickle.dumps(caught.value)).timeout_s == 0.0  # noqa: S301 - our own error


def test_the_time_that_was_given_bounds_each_wait() -> None:
    world, _ = run_world(6, 2)
    watch, got = watch_of(world, timeout_s=3.0), []
    watch.heard(Link.SUBSCRIBED)

    assert settle(watch, got) == Listen(3.0)
    world.now += 3
    with pytest.raises(WatchTimeout):
        settle(watch, got)


@pytest.mark.parametrize("error", [RunNotFound("x"), CommandTimeout("r", 1.0), ConnectionError()])
def test_what_the_first_reading_raises_is_raised(error: Exception) -> None:
    world, _ = run_world(3)

    with pytest.raises(type(error)):
        watch_of(world).read_failed(error)


def _begun() -> RunWatch:
    world, _ = run_world(6, 2)
    watch = watch_of(world)
    watch.heard(Link.SUBSCRIBED)
    settle(watch, [])
    return watch


@pytest.mark.parametrize(
    "make",
    [
        lambda: CommandTimeout("r", 1.0),
        DatabaseBusy,
        ConnectionResetError,
        lambda: OperationalError("SELECT 1", {}, Exception("connection refused")),
    ],
)
def test_a_later_failure_that_may_pass_is_waited_out_with_one_warning(
    make: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    watch = _begun()

    watch.read_failed(make())
    watch.read_failed(make())

    assert settle(watch, []) == Listen(1.0)
    assert caplog.text.count("cannot be read") == 1


@pytest.mark.parametrize("error", [RunNotFound("x"), TypeError(), OperationalError("x", {}, Exception("no such table"))])
def test_a_later_failure_that_will_not_pass_is_raised(error: Exception) -> None:
    watch = _begun()

    with pytest.raises(type(error)):
        watch.read_failed(error)


# a session


def _session(world: World, **options: Any) -> tuple[SessionWatch, list[StateChange]]:
    watch, got = SessionWatch(world, clock=world.clock, **options), []
    watch.heard(Link.SUBSCRIBED)
    settle(watch, got)
    return watch, got


def _world(*counts: int) -> World:
    world = World(committed={str(n): [] for n in range(len(counts))})
    for n, count in enumerate(counts):
        commit(world, n, count)
    world.now += 1
    return world


def test_a_session_is_followed_from_now_or_from_where_the_caller_says() -> None:
    world = _world(3, 3)
    watch, got = _session(world, after={"1": 1})
    commit(world, 0, 1)
    watch.heard(world.committed["0"][-1])
    settle(watch, got)

    assert [(each.workflow_id, each.seq) for each in got] == [("1", 2), ("1", 3), ("0", 4)]


def test_the_late_message_of_a_run_that_was_over_before_does_not_bring_its_history() -> None:
    world = _world(6)
    watch, got = _session(world)

    for each in world.committed["0"]:
        watch.heard(each)
    settle(watch, got)

    assert got == []


def test_a_run_that_was_committed_long_after_its_rows_were_written_is_seen_whole() -> None:
    world = _world(0)
    world.committed["0"] = []
    late = World(now=world.now - 1, committed={"0": []})
    commit(late, 0, 3)
    watch, got = _session(world)

    world.committed = late.committed
    watch.heard(late.committed["0"][0])
    settle(watch, got)

    assert seqs(got) == [1, 2, 3]


def test_a_run_that_came_and_went_while_nothing_was_heard_is_found() -> None:
    world = _world(0)
    watch, got = _session(world)
    watch.heard(Link.LOST)
    commit(world, 0, 6)
    settle(watch, got)

    assert seqs(got) == [1, 2, 3, 4, 5, 6]
    world.now += 10
    settle(watch, got)
    assert len(got) == 6


def test_a_session_that_is_known_to_its_end_is_not_read_again_and_again() -> None:
    world = _world(6)
    watch, got = _session(world, after={"0": 6})
    reads = world.reads
    world.now += 5

    settle(watch, got)

    assert (got, world.reads) == ([], reads + 1)


def test_the_time_that_was_given_ends_the_watch_of_a_session() -> None:
    world = _world(3)
    watch, got = _session(world, timeout_s=2.0)
    world.now += 2

    with pytest.raises(WatchTimeout):
        settle(watch, got)
