"""What may be stored as JSON, and what is said of what may not."""

from __future__ import annotations

import json
from enum import Enum, IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import NotJson, PayloadTooLarge
from interlock.core.json_values import Json, checked_json, plain_json, shown_path


def test_a_document_is_copied_as_plain_json() -> None:
    document = {"rows": (1, [2.5, None, True])}
    copy = checked_json("result", document, 100)
    assert copy == {"rows": [1, [2.5, None, True]]}
    assert copy is not document


def test_the_limit_is_in_bytes_of_the_compact_text() -> None:
    assert checked_json("input", "é" * 49, 100) == "é" * 49
    with pytest.raises(PayloadTooLarge) as refused:
        checked_json("input", "é" * 50, 100)
    assert (refused.value.size, refused.value.limit) == (102, 100)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_whatever_is_json_is_accepted_as_it_is(value: Json) -> None:
    copy, problems = plain_json(value)
    assert problems == ()
    assert copy == value
    assert json.loads(json.dumps(copy)) == value


class Stage(str, Enum):  # noqa: UP042 - StrEnum's members print as their values, these do not
    """An enumeration as people write it."""

    DONE = "done"


class Level(IntEnum):
    """Is another number to `int()`."""

    HIGH = 3

    def __int__(self) -> int:
        return -1


class Title(str):
    """Is another text to `str()`."""

    __slots__ = ()

    def __str__(self) -> str:
        return "shown"


class Ratio(float):
    """Is another number to `float()`, and a text to `repr()`."""

    def __float__(self) -> float:
        return -1.0

    def __repr__(self) -> str:
        return "a half"


def test_of_a_subclass_of_text_or_number_what_json_writes_is_kept() -> None:
    """As Celery's messages have it, so that a step gives and gets what a task does."""
    value = {Stage.DONE: [Stage.DONE, Level.HIGH, Title("kept"), Ratio(0.5)], Title("key"): {"deep": Stage.DONE}}
    copy, problems = plain_json(value)
    assert problems == ()
    assert copy == json.loads(json.dumps(value)) == {"done": ["done", 3, "kept", 0.5], "key": {"deep": "done"}}
    kinds = {type(part) for part in (*copy, *copy["done"], copy["key"]["deep"])}
    assert kinds == {str, int, float}


def test_a_place_under_such_a_key_is_named_as_it_is_stored() -> None:
    (_, ((path, message),)) = plain_json({Stage.DONE: Ratio("inf")})
    assert (path, message) == (("done",), "inf is no JSON number")


SECRET = "s3cr3t"  # noqa: S105 - planted, to be looked for


def test_of_a_place_in_a_result_only_keys_that_are_names_are_shown() -> None:
    """What a step's error says of its result goes to subscribers, who may not see it."""
    (_, problems) = plain_json({"rows": [{f"{SECRET}@example.com": {"at": {1, 2}}}]})
    ((path, message),) = problems
    assert shown_path(path) == "['rows'][0][…]['at']"
    assert message == "set is not JSON: use a list"
    with pytest.raises(NotJson, match=r"^result\['rows'\]\[0\]\[…\]: set is not JSON") as refused:
        checked_json("result", {"rows": [{f"{SECRET}@example.com": {1, 2}}]})
    assert refused.value.field == "result['rows'][0][…]"
    (_, problems) = plain_json({"rows": {(SECRET, 1): 1}})
    assert SECRET not in str(problems)
