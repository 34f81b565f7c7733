"""The fields of a step: keys and arguments, and how what does not fit is told."""

from __future__ import annotations

import datetime as dt

import pytest

from interlock.core.json_values import MAX_DEPTH
from interlock.core.plan import StepSpec
from tests.core.plan_faults import faults_in


def test_a_step_keeps_its_own_copy_of_its_arguments() -> None:
    args = [[1]]
    step = StepSpec(key="a", task="t", args=args)
    args[0].append(2)
    assert step.args == [[1]]


@pytest.mark.parametrize("key", ["", "a b", "a/b", "ä", "a\n", "a" * 201, 5, None])
def test_a_key_outside_the_alphabet_is_refused(key: object) -> None:
    assert faults_in({"key": key})[0].startswith("steps[0].key: ")


@pytest.mark.parametrize("key", ["a", "A.b-c_9", "0", "a" * 200])
def test_a_key_inside_the_alphabet_is_accepted(key: object) -> None:
    assert faults_in({"key": key}) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "set is not JSON: use a list"),
        (b"x", "bytes is not JSON: encode it, such as by base64"),
        (dt.date(2024, 1, 1), "date is not JSON: write it as a string"),
        (object(), "object is not JSON"),
        (float("nan"), "nan is no JSON number"),
        (float("-inf"), "-inf is no JSON number"),
        ({1: "x"}, "a key is int, not a string: quote it"),
        ("a\0b", "text with a NUL character cannot be stored"),
        ("\ud800", "text with a lone surrogate cannot be stored"),
        (2**4097, "an integer of over 4096 bits: pass a string"),
    ],
)
def test_an_argument_that_is_not_json_is_refused_with_its_place(value: object, said: str) -> None:
    assert faults_in({"args": [0, value]}) == [f"steps[0].args[1]: {said}"]
    assert faults_in({"kwargs": {"x": [value]}}) == [f"steps[0].kwargs.x[0]: {said}"]


def test_arguments_nested_too_deeply_or_into_themselves_are_refused() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    ring: list[object] = []
    ring += [ring, ring]
    assert faults_in({"args": deep})[0].endswith(f"nested more than {MAX_DEPTH} deep")
    assert faults_in({"args": ring})[0].endswith(f"nested more than {MAX_DEPTH} deep")


def test_arguments_that_expand_to_billions_by_sharing_are_refused() -> None:
    shared: list[object] = ["x"]
    for _ in range(30):
        shared = [shared, shared]
    (fault,) = faults_in({"args": shared})
    assert fault.startswith("steps[0].args[0]")
    assert fault.endswith("over 1,000,000 values")
