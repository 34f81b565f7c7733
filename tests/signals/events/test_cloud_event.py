"""The wire format: CloudEvents 1.0 that survive the way there and back, and nothing else is let in."""

from __future__ import annotations

import fnmatch
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import InvalidName
from interlock.core.events import StateChange
from interlock.signals.events.cloud_event import UnreadableEvent, channel, decode, encode, session_pattern
from tests.signals.scripts import RUN_ID, change

_NAMES = st.text("ABCXYZabcxyz019_.-", min_size=1, max_size=30)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_CHANGES = st.builds(
    StateChange,
    entity_type=st.sampled_from(["workflow_run", "workflow_step"]),
    entity_id=_NAMES,
    session_id=_NAMES,
    workflow_id=_NAMES,
    seq=st.integers(1, 2**63 - 1),
    from_state=st.none() | st.sampled_from(["pending", "running"]),
    to_state=st.sampled_from(["running", "completed"]),
    reason=st.none() | _TEXTS,
    transitioned_by=_TEXTS,
    step_key=st.none() | _NAMES,
    attempt=st.none() | st.integers(0, 2**31 - 1),
    created_at=st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    meta=st.none() | st.dictionaries(_TEXTS, _JSON, max_size=4),
    history_id=st.integers(1, 2**63 - 1),
)


@given(_CHANGES)
def test_what_is_encoded_is_decoded_unchanged(original: StateChange) -> None:
    assert decode(encode(original)) == original


@given(_CHANGES)
def test_the_cloudevents_package_reads_our_events(original: StateChange) -> None:
    event = JSONFormat().read(CloudEvent, encode(original))

    assert event.get_id() == str(original.history_id)
    assert event.get_source() == f"interlock/{original.session_id}/{original.workflow_id}"
    if original.created_at is not None:  # the package invents a time where there is none
        assert event.get_time() == original.created_at
    assert event.get_datacontenttype() == "application/json"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["seq"] == original.seq


def test_the_type_and_the_subject_say_what_moved() -> None:
    step = json.loads(encode(change(2, step_key="load")))
    run = json.loads(encode(change(3, "completed", entity_type="workflow_run")))

    assert (step["type"], step["subject"]) == ("interlock.step.state_changed", "load")
    assert (run["type"], run["subject"]) == ("interlock.workflow.state_changed", RUN_ID)


def test_a_change_that_is_not_committed_is_no_event() -> None:
    with pytest.raises(ValueError, match="committed"):
        encode(replace(change(1), history_id=None))


def test_members_that_a_later_version_adds_are_ignored() -> None:
    event = json.loads(encode(change(1)))
    event["traceparent"] = "00-0-0-00"
    event["data"]["worker"] = "w1"

    assert decode(json.dumps(event)) == change(1)


def _broken(*path: str, value: object) -> bytes:
    event = json.loads(encode(change(1)))
    part = event
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        b'{"hello": "secret-content"}',
        _broken("specversion", value="0.3"),
        _broken("id", value="secret-content"),
        _broken("type", value="com.example.secret-content"),
        _broken("type", value="interlock.workflow.state_changed"),
        _broken("data", value="secret-content"),
        _broken("data", "seq", value=0),
        _broken("data", "seq", value="1"),
        _broken("data", "session_id", value="secret:content*"),
        _broken("data", "created_at", value="2026-01-31T12:00:00"),
        _broken("data", "to_state", value=None),
    ],
)
def test_foreign_and_broken_messages_get_one_typed_error_that_does_not_quote_them(message: bytes) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        decode(message)

    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own error
    assert error.faults == caught.value.faults != ()
    assert "secret-content" not in str(error)


@given(_NAMES, _NAMES, _NAMES, _NAMES)
def test_a_sessions_pattern_matches_its_channels_and_no_other_sessions(a: str, b: str, one: str, two: str) -> None:
    pattern = session_pattern(one, a)

    assert fnmatch.fnmatchcase(channel(one, a, b), pattern)
    assert fnmatch.fnmatchcase(channel(two, b, a), pattern) == ((one, a) == (two, b))


@pytest.mark.parametrize("name", ["", "a:b", "*", "a b", "ä", "a/b", "[a]"])
def test_names_that_could_widen_a_channel_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        channel("interlock", "default", name)
    with pytest.raises(InvalidName):
        session_pattern("interlock", name)
    with pytest.raises(InvalidName):
        session_pattern(name, "default")
