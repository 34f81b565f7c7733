"""What may be stored as JSON, and what is said of what may not."""

from __future__ import annotations

import pytest

from interlock.core.errors import NotJson, PayloadTooLarge
from interlock.core.json_values import checked_json


def test_a_document_is_copied_as_plain_json() -> None:
    document = {"rows": (1, [2.5, None, True])}
    copy = checked_json("result", document, 100)
    assert copy == {"rows": [1, [2.5, None, True]]}
    assert copy is not document


def test_a_key_that_may_be_data_is_not_told() -> None:
    with pytest.raises(NotJson) as refused:
        checked_json("checkpoint", {"customers": {"a@b.example": [object()]}})
    assert refused.value.field == "checkpoint['customers'][…][0]"
    assert str(refused.value) == "checkpoint['customers'][…][0]: object is not JSON"


def test_the_limit_is_in_bytes_of_the_compact_text() -> None:
    assert checked_json("input", "é" * 49, 100) == "é" * 49
    with pytest.raises(PayloadTooLarge) as refused:
        checked_json("input", "é" * 50, 100)
    assert (refused.value.size, refused.value.limit) == (102, 100)
