"""What is admitted from the control queue, and how everything else is refused."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from interlock.core.json_values import MAX_DEPTH
from interlock.core.settings import Settings
from interlock.signals.control.admission import DEEPEST, Admission, Admitted, Rejected
from interlock.signals.control.queues import reply_name
from interlock.signals.control.signing import Keyring

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


def test_a_refusal_is_answered_where_an_answer_may_go() -> None:
    theirs, ours = reply_name("blue"), reply_name("red")
    found = ADMISSION.read(_body(session_id="red", reply_to=theirs))
    assert isinstance(found, Rejected)
    assert found.reply_to is None, "nor does the refusal"
    broken = ADMISSION.read(_body("explode", session_id="red", reply_to=ours))
    assert isinstance(broken, Rejected)
    assert (broken.reply_to, broken.request_id) == (ours, "c1")
    assert ADMISSION.read(_body("explode", session_id="red", reply_to=theirs)).reply_to is None  # type: ignore[union-attr]
    assert ADMISSION.read(_body("explode", reply_to="celery")).reply_to is None  # type: ignore[union-attr]
