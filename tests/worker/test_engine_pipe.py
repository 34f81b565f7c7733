"""The lines between MAIN and its engine: what is no message is passed over."""

from __future__ import annotations

from io import BytesIO

from interlock.worker.engine_pipe import parse_message, read_lines


def test_messages_come_in_order_until_the_end_and_nothing_else_does() -> None:
    stream = BytesIO(b'{"held": []}\n\nno json\n["a list"]\n{"ended": 1}\n{"cut')
    assert list(read_lines(stream)) == [{"held": []}, {"ended": 1}]


def test_a_line_that_is_no_object_is_no_message() -> None:
    assert parse_message(b"1") is None
    assert parse_message(b"\xff") is None
    assert parse_message(b'{"a": 1}') == {"a": 1}
