"""An error's way through JSON."""

from __future__ import annotations

import json

from interlock.core.errors import InvalidPlan
from interlock.signals.control.error_documents import error_document, error_from


def test_an_answer_does_not_name_faults_without_end_and_says_so() -> None:
    document = error_document(InvalidPlan([f"steps[{number}].key: is required" for number in range(100_000)]))
    assert len(json.dumps(document)) < 200_000
    error = error_from(json.loads(json.dumps(document)))
    assert isinstance(error, InvalidPlan)
    assert len(error.faults) == 1000
    assert "the plan has 100000 faults" in str(error)
    assert str(error).endswith("… and more")
