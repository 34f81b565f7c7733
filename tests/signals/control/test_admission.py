"""What is admitted from the control queue, and how everything else is refused."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from interlock.core.errors import InvalidPlan
from interlock.core.json_values import MAX_DEPTH
from interlock.core.settings import Settings
from interlock.signals.control.admission import DEEPEST, Admission, Admitted, Rejected
from interlock.signals.control.error_documents import error_document, error_from
from interlock.signals.control.queues import reply_name
from interlock.signals.control.signing import Keyring
from interlock.signals.control.verbs import VERBS

ADMISSION = Admission(Settings())
KEYED = Admission(Settings(signing_keys={"*": "k" * 32}))  # type: ignore[arg-type] # as a user gives it
RUN = "7d0c2f6e-0000-4000-8000-000000000001"


def _body(command: str = "cancel", **fields: Any) -> str:
    return json.dumps({"id": "c1", "command": command, "workflow_id": RUN, **fields})


def _refusal(body: str | bytes, admission: Admission = ADMISSION) -> str:
    found = admission.read(body)
    assert isinstance(found, Rejected), found
    assert found.refusal.code == "invalid"
    return str(found.refusal)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# --- arguments

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


@pytest.mark.parametrize(("verb", "args", "named"), BAD)
def test_an_argument_that_does_not_fit_is_named(verb: str, args: dict[str, Any], named: str) -> None:
    assert named in _refusal(_body(verb, args=args))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_arguments_and_says_whether_it_needs_a_run(verb: str) -> None:
    required = {name: "a" for name, field in VERBS[verb].args.model_fields.items() if field.is_required()}
    found = ADMISSION.read(json.dumps({"id": "c1", "command": verb, "args": required}))
    if VERBS[verb].needs_run:
        assert isinstance(found, Rejected)
        assert "workflow_id: is required" in str(found.refusal)
    else:
        assert isinstance(found, Admitted)


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
    said = _refusal(_body(**fields))
    assert named in said
    assert "xxx" not in said


# --- bounds


def test_a_payload_may_be_as_deep_as_a_payload_may_be_and_a_message_not_much_deeper() -> None:
    plan = [{"key": "a", "task": "t", "args": [_nested(MAX_DEPTH)]}]
    assert isinstance(ADMISSION.read(_body("enqueue", args={"plan": plan, "input": _nested(MAX_DEPTH)})), Admitted)
    assert f"nested more than {DEEPEST} deep" in _refusal(
        _body("settle", args={"step": "a", "result": _nested(DEEPEST)})
    )
    assert "not JSON" in _refusal("[" * 1_000_000)


@pytest.mark.parametrize("admission", [ADMISSION, KEYED], ids=["unsigned", "signed"])
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00",
        '{"id":"c1","command":"list"}'.encode("utf-16"),
        b'{"id":"c1","command":"settle","workflow_id":"w","args":{"step":"a","result":NaN}}',
        b'{"id":"c1","command":"settle","workflow_id":"w","args":{"step":"a","result":1e999}}',
        b'{"id":"c1","command":"settle","workflow_id":"w","args":{"step":"a","result":' + b"9" * 5000 + b"}}",
        b"",
        b"\0",
    ],
)
def test_what_is_no_json_is_refused(body: bytes, admission: Admission) -> None:
    assert "not JSON" in _refusal(body, admission)


def test_a_message_over_the_limit_is_not_parsed() -> None:
    admission = Admission(Settings(max_command_bytes=1000))
    assert "1,001 bytes" in _refusal(b'"' + b"x" * 999 + b'"', admission)
    assert "1,002 bytes" in _refusal("é" * 501, admission), "bytes are counted, not characters"


def test_many_fields_are_not_answered_one_by_one() -> None:
    assert _refusal(json.dumps({f"k{number}": 1 for number in range(100_000)})) == "not a command: over 32 fields"
    assert "over 32 fields" in _refusal(_body(args={f"k{number}": 1 for number in range(100_000)}))


def test_reading_takes_a_bounded_multiple_of_the_messages_size() -> None:
    body = b'{"id":"c1","command":"settle","workflow_id":"w","args":{"step":"a","result":[' + b"[]," * 300_000 + b"1]}}"
    tracemalloc.start()
    try:
        ADMISSION.read(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(body)


def test_a_refusal_cannot_pass_for_another_line_of_the_log() -> None:
    said = _refusal('{"id":"c1","command":"list","a\\n[ERROR] forged \\u001b[31m":1,"args":{"x\\ny":2}}')
    assert said.isprintable()
    assert "forged" in said


def test_text_that_no_database_stores_trips_neither_admission_nor_signature() -> None:
    """Half a character, as the key of a plan: found by fuzzing, where it made the message come back for ever."""
    keyring = Keyring.of(Settings(signing_keys={"*": "k" * 32}))  # type: ignore[arg-type] # as a user gives it
    found = ADMISSION.read(_body("set_plan", args={"plan": {"\ud800": "\udfff"}}))
    assert isinstance(found, Admitted), "the plan's own checks name it"
    signed = keyring.sign(found.command)
    assert isinstance(KEYED.read(json.dumps(signed.document())), Admitted)


def test_an_answer_does_not_name_faults_without_end_and_says_so() -> None:
    document = error_document(InvalidPlan([f"steps[{number}].key: is required" for number in range(100_000)]))
    assert len(json.dumps(document)) < 200_000
    error = error_from(json.loads(json.dumps(document)))
    assert isinstance(error, InvalidPlan)
    assert len(error.faults) == 1000
    assert "the plan has 100000 faults" in str(error)
    assert str(error).endswith("… and more")


# --- where the answer goes


def test_an_answer_goes_to_no_queue_of_another_session() -> None:
    theirs, ours = reply_name("blue"), reply_name("red")
    found = ADMISSION.read(_body(session_id="red", reply_to=theirs))
    assert isinstance(found, Rejected)
    assert found.reply_to is None, "nor does the refusal"
    assert isinstance(ADMISSION.read(_body(session_id="red", reply_to=ours)), Admitted)
    assert isinstance(ADMISSION.read(_body(session_id="red", reply_to="interlock.reply.plain")), Admitted)
    broken = ADMISSION.read(_body("explode", session_id="red", reply_to=ours))
    assert isinstance(broken, Rejected)
    assert (broken.reply_to, broken.request_id) == (ours, "c1")
    assert ADMISSION.read(_body("explode", session_id="red", reply_to=theirs)).reply_to is None  # type: ignore[union-attr]
    assert ADMISSION.read(_body("explode", reply_to="celery")).reply_to is None  # type: ignore[union-attr]
