"""A control message's fields and arguments: what does not fit is named and not quoted."""

from __future__ import annotations

from typing import Any

import pytest

from interlock.core.errors import CommandRefused
from interlock.signals.control.command import may_answer, parse_args, parse_fields
from interlock.signals.control.queues import reply_name
from interlock.signals.control.verbs import VERBS

RUN = "7d0c2f6e-0000-4000-8000-000000000001"

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("enqueue", {}, "args.plan"),
    ("enqueue", {"plan": [], "name": 7}, "args.name"),
    ("enqueue", {"plan": [], "name": "a\0b"}, "args.name"),
    ("enqueue", {"plan": [], "task_description": ["x"]}, "args.task_description"),
    ("enqueue", {"plan": [], "idempotency_key": "a b"}, "args.idempotency_key"),
    ("enqueue", {"plan": [], "start_at": "tomorrow"}, "args.start_at"),
    ("enqueue", {"plan": [], "start_at": "2026-01-31T08:00:00"}, "args.start_at: has no time zone"),
    ("enqueue", {"plan": [], "start_at": "0001-01-01T00:00:00+14:00"}, "args.start_at: is beyond"),
    ("enqueue", {"plan": [], "start_at": 1}, "args.start_at"),
    ("create", {"task_description": None}, "args.task_description"),
    ("create", {"task_description": "x", "meta": [1]}, "args.meta"),
    ("set_plan", {}, "args.plan"),
    ("pause", {"mode": 1}, "args.mode"),
    ("pause", {"step": {"a": 1}}, "args.step"),
    ("resume", {"step": "a b"}, "args.step"),
    ("approve", {}, "args.step"),
    ("approve", {"step": "a", "comment": 1}, "args.comment"),
    ("reject", {"step": "a", "comment": "x" * 10_001}, "args.comment"),
    ("retry", {"step": 1}, "args.step"),
    ("settle", {"result": 1}, "args.step"),
    ("replay", {"after_seq": "3"}, "args.after_seq"),
    ("replay", {"after_seq": -1}, "args.after_seq"),
    ("replay", {"after_seq": True}, "args.after_seq"),
    ("replay", {"limit": 1.5}, "args.limit"),
    ("replay", {"limit": 2**70}, "args.limit"),
    ("result", {"step": []}, "args.step"),
    ("list", {"limit": 0}, "args.limit"),
    ("list", {"status": 7}, "args.status"),
    ("list", {"name": {"a": 1}}, "args.name"),
    ("list", {"created_after": []}, "args.created_after"),
    *((verb, {"surprise": 1}, "args.surprise") for verb in VERBS),
]


def _refusal(command: str = "cancel", **fields: Any) -> str:
    with pytest.raises(CommandRefused) as refused:
        parse_args(parse_fields({"id": "c1", "command": command, "workflow_id": RUN, **fields}))
    assert refused.value.code == "invalid"
    return str(refused.value)


@pytest.mark.parametrize(("verb", "args", "named"), BAD)
def test_an_argument_that_does_not_fit_is_named(verb: str, args: dict[str, Any], named: str) -> None:
    assert named in _refusal(verb, args=args)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_concerns_a_run_needs_its_id(verb: str) -> None:
    required = {name: "a" for name, field in VERBS[verb].args.model_fields.items() if field.is_required()}
    if VERBS[verb].needs_run:
        assert "workflow_id: is required" in _refusal(verb, args=required, workflow_id=None)
    else:
        parse_args(parse_fields({"id": "c1", "command": verb, "args": required}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"if_seq": "3"}, "if_seq"),
        ({"if_seq": True}, "if_seq"),
        ({"if_seq": 2**63}, "if_seq"),
        ({"actor": ""}, "actor"),
        ({"actor": "a\0b"}, "actor"),
        ({"reason": "\ud800"}, "reason"),
        ({"reason": "x" * 10_001}, "reason"),
        ({"id": "a b"}, "id"),
        ({"session_id": "*"}, "session_id"),
        ({"signature": "0" * 63}, "signature"),
        ({"signature": "G" * 64}, "signature"),
        ({"signed_at": 1.5}, "signed_at"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_field_that_does_not_fit_is_named_and_not_quoted(fields: dict[str, Any], named: str) -> None:
    said = _refusal(**fields)
    assert named in said
    assert "xxx" not in said


def test_an_unknown_verb_is_answered_with_those_there_are() -> None:
    said = _refusal("explode")
    assert all(verb in said for verb in VERBS)


@pytest.mark.parametrize("session", ["red", "blue"])
def test_an_answer_goes_to_no_queue_of_another_session(session: str) -> None:
    theirs = reply_name("blue")
    assert may_answer(theirs, session) == (session == "blue")
    assert may_answer("interlock.reply.plain", session), "a queue of no session is everybody's"
    if session == "blue":
        parse_fields({"id": "c1", "command": "list", "session_id": session, "reply_to": theirs})
    else:
        assert "another session" in _refusal(session_id=session, reply_to=theirs)
