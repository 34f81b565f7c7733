"""Cycles, levels and ancestors, on graphs that nobody chose by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.plan import PlanSpec, dependents, find_cycle, find_cycles, topological_levels
from interlock.core.plan.graph import Ancestors


@st.composite
def dags(draw: st.DrawFn, max_size: int = 12) -> dict[str, tuple[str, ...]]:
    """A mapping of keys to what they wait for, without a cycle, in any order."""
    size = draw(st.integers(1, max_size))
    keys = draw(st.permutations([f"k{index}" for index in range(size)]))
    graph = {
        key: tuple(draw(st.sets(st.sampled_from(keys[:index]), max_size=4))) if index else ()
        for index, key in enumerate(keys)
    }
    return {key: graph[key] for key in draw(st.permutations(keys))}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Any graph, with cycles or without."""
    keys = [f"k{index}" for index in range(draw(st.integers(1, 8)))]
    return {key: tuple(draw(st.sets(st.sampled_from(keys), max_size=3))) for key in keys}


def reachable(graph: dict[str, tuple[str, ...]], start: str) -> set[str]:
    """Every key that `start` waits for, directly or not; the slow and obvious way."""
    seen, stack = set(), [*graph[start]]
    while stack:
        key = stack.pop()
        if key not in seen:
            seen.add(key)
            stack += graph[key]
    return seen


@given(dags())
def test_levels_hold_every_step_once_each_right_after_what_it_waits_for(graph: dict[str, tuple[str, ...]]) -> None:
    levels = topological_levels(graph)
    level_of = {key: number for number, level in enumerate(levels) for key in level}
    assert sorted(key for level in levels for key in level) == sorted(graph)
    for key, after in graph.items():
        assert level_of[key] == max((level_of[name] + 1 for name in after), default=0)


@given(dags())
def test_levels_keep_the_plans_order_and_a_plan_without_a_cycle_has_none(graph: dict[str, tuple[str, ...]]) -> None:
    position = {key: index for index, key in enumerate(graph)}
    for level in topological_levels(graph):
        assert level == sorted(level, key=position.__getitem__)
    assert find_cycle(graph) is None


@given(dags(), st.data())
def test_a_back_edge_is_reported_as_a_cycle_that_is_really_there(
    graph: dict[str, tuple[str, ...]], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from([*graph]))
    below = [other for other in graph if key in reachable(graph, other)] or [key]
    back = data.draw(st.sampled_from(below))
    graph[key] = (*graph[key], back)
    cycle = find_cycle(graph)
    assert cycle is not None
    assert cycle[0] == cycle[-1]
    for before, after in pairwise(cycle):
        assert before in graph[after]
    assert key in cycle


@given(graphs())
def test_each_knot_is_reported_once_by_a_cycle_of_its_own(graph: dict[str, tuple[str, ...]]) -> None:
    """A knot is a set of steps that all wait for each other; found here the slow way."""
    knots = {
        frozenset(other for other in graph if other in reachable(graph, key) and key in reachable(graph, other))
        for key in graph
        if key in reachable(graph, key)
    }
    cycles = find_cycles(graph)
    assert len(cycles) == len(knots)
    for cycle in cycles:
        assert len(set(cycle)) == len(cycle) - 1
        assert sum(set(cycle) <= knot for knot in knots) == 1
        for before, after in pairwise(cycle):
            assert before in graph[after]


@given(dags())
def test_ancestors_agree_with_walking_the_graph(graph: dict[str, tuple[str, ...]]) -> None:
    ancestors = Ancestors(graph)
    for key in graph:
        above = reachable(graph, key)
        assert {other for other in graph if ancestors.has(key, other)} == above


@given(dags())
def test_dependents_are_the_edges_turned_round(graph: dict[str, tuple[str, ...]]) -> None:
    turned = {(before, after) for before, names in dependents(graph).items() for after in names}
    assert turned == {(before, after) for after, names in graph.items() for before in names}


def test_names_that_are_not_in_the_graph_are_ignored() -> None:
    graph = {"a": ("gone",), "b": ("a", "gone")}
    assert topological_levels(graph) == [["a"], ["b"]]
    assert dependents(graph) == {"a": ["b"], "b": []}
    assert find_cycle(graph) is None
    assert not Ancestors(graph).has("b", "gone")


def test_a_plan_can_stand_for_its_graph() -> None:
    plan = PlanSpec.parse([{"key": "b", "task": "t", "after": "a"}, {"key": "a", "task": "t"}])
    assert topological_levels(plan) == [["a"], ["b"]]
    assert find_cycle(plan) is None
    assert Ancestors(plan).has("b", "a")


@pytest.mark.parametrize("size", [1, 2, 3, 20_000])
def test_a_ring_of_any_length_is_found_without_recursion(size: int) -> None:
    ring = {f"k{index}": (f"k{(index - 1) % size}",) for index in range(size)}
    cycle = find_cycle(ring)
    assert cycle is not None
    assert len(cycle) == size + 1
    assert topological_levels(ring) == []


def test_a_row_of_20_000_steps_has_as_many_levels() -> None:
    row = {f"k{index}": (f"k{index - 1}",) if index else () for index in range(20_000)}
    assert len(topological_levels(row)) == 20_000
