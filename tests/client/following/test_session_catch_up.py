"""What the watch of a session decides, without Redis, database or time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.client.following.catch_up import WatchTimeout
from interlock.client.following.session_catch_up import SessionWatch
from interlock.signals.events.subscriber import Link

from .watching_world import World, commit, seqs, settle

if TYPE_CHECKING:
    from interlock.core.events import StateChange

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
