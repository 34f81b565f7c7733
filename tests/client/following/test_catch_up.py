"""What a watch decides, without Redis, database or time: every change once and in order, whatever is lost on the way."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from interlock.client.following.catch_up import Listen, Read, RunWatch, UnknownPosition, WatchTimeout
from interlock.core.errors import CommandTimeout, DatabaseBusy, RunNotFound
from interlock.core.queries.history import PAGE
from interlock.signals.events.subscriber import Link
from tests.signals.scripts import run_of

from .watching_world import World, seqs, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.events import StateChange


def run_world(length: int, committed: int | None = None, **options: Any) -> tuple[World, list[StateChange]]:
    """A world with one run of `length` changes, of which `committed` are in the history."""
    changes = run_of(length)
    return World(committed={"run": changes[:committed]}, **options), changes


def watch_of(world: World, **options: Any) -> RunWatch:
    return RunWatch(world.fetch, clock=world.clock, **options)


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


@pytest.mark.parametrize(
    "error", [RunNotFound("x"), TypeError(), OperationalError("x", {}, Exception("no such table"))]
)
def test_a_later_failure_that_will_not_pass_is_raised(error: Exception) -> None:
    watch = _begun()

    with pytest.raises(type(error)):
        watch.read_failed(error)
