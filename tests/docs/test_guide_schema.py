"""The published JSON Schema: up to date, and of one mind with `interlock validate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from docs import workflow_schema
from interlock import Step, Workflow
from interlock.core.plan import examine_plan
from tests.servers import ROOT

from . import guide_page

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = ROOT / "docs" / "workflow.schema.json"
_STEP = {"key": "a", "task": "shop.charge"}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """The published file, as an editor reads it."""
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def _document(**fields: Any) -> dict[str, Any]:
    return {"name": "order", "task_description": "Show it", "steps": [_STEP], **fields}


def test_the_schema_is_that_of_the_code() -> None:
    assert _FILE.read_text(encoding="utf-8") == workflow_schema.render(), "docs/workflow.schema.json: run `make docs`"


def test_the_schema_describes_every_field() -> None:
    """What an editor shows when one points at a field."""
    definitions = json.loads(_FILE.read_text(encoding="utf-8"))
    for name in ("StepSpec", "ApprovalSpec", "MapSpec", "RetryPolicy"):
        fields = definitions["$defs"][name]["properties"]
        assert [field for field, about in fields.items() if not about.get("description")] == [], name


@pytest.mark.parametrize(
    "document",
    [
        _document(),
        _document(deadline_s=3600, max_parallel=4, on_external_revoke="pause", run_through=True),
        _document(steps=[{**_STEP, "retry": {"max_attempts": 3}, "timeout": 30, "queue": "q", "when": "input.x"}]),
        _document(steps=[{**_STEP, "map": "input.items"}]),
        _document(steps=[{**_STEP, "map": {"over": "input.items", "max_parallel": 2}}]),
        _document(steps=[{"key": "gate", "approval": True}]),
        _document(
            steps=[{"key": "gate", "approval": {"approvers": ["eve"], "deadline_s": 60}}, {**_STEP, "after": "gate"}]
        ),
    ],
)
def test_a_document_that_is_a_workflow_pleases_the_schema(
    schema: Draft202012Validator, document: Mapping[str, Any]
) -> None:
    assert not examine_plan(document)[1]
    assert [error.message for error in schema.iter_errors(document)] == []


@pytest.mark.parametrize(
    "document",
    [
        _document(name=None),
        _document(steps=[]),
        _document(unknown=1),
        _document(steps=[{**_STEP, "timout": 30}]),
        _document(steps=[{**_STEP, "on_failure": "ignore"}]),
        _document(steps=[{**_STEP, "retry": {"max_attempts": 0}}]),
        _document(steps=[{**_STEP, "key": "a b"}]),
        _document(steps=[{**_STEP, "map": {"max_parallel": 2}}]),
    ],
)
def test_a_mistake_inside_a_field_is_seen_by_the_schema(
    schema: Draft202012Validator, document: Mapping[str, Any]
) -> None:
    assert list(schema.iter_errors(document))


def test_the_files_of_the_guide_please_the_schema_or_not_as_the_guide_says(schema: Draft202012Validator) -> None:
    found = dict(guide_page.files(ROOT / "docs" / "guide" / "yaml.md"))
    assert schema.is_valid(yaml.safe_load(found["order.yaml"]))
    assert not schema.is_valid(yaml.safe_load(found["mistakes.yaml"]))


def test_what_python_writes_pleases_the_schema(schema: Draft202012Validator) -> None:
    first = Step("a", "shop.charge", args=[{"$expr": "input"}], retry={"max_attempts": 2})
    workflow = Workflow("order", "Show it", [first, Step("b", "shop.pack", args=[first.result], after=first)])
    assert schema.is_valid(yaml.safe_load(workflow.to_yaml()))
