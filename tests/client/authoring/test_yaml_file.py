"""YAML: each mistake with its file, line and column, and what was meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interlock.client.authoring.workflow import Step, Workflow
from interlock.client.authoring.yaml_file import dump_yaml, json_schema, read_yaml
from interlock.core.errors import InvalidPlan
from interlock.core.plan import PlanLimits

if TYPE_CHECKING:
    from pathlib import Path

    from interlock.core.json_values import Json

HEAD = "name: w\ntask_description: d\n"


def faults_of(source: str | Path, **options: Json) -> list[str]:
    with pytest.raises(InvalidPlan) as caught:
        Workflow.from_yaml(source, **options)
    return list(caught.value.faults)


def values_of(text: str) -> Json:
    """The document of a YAML text, without its being a plan."""
    document, faults = read_yaml(text, lambda found: (found, ()))
    assert faults == ()
    return document


def test_a_file_is_read_by_path_or_by_name_and_named_in_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(HEAD + "steps:\n  - {key: a, task: t}\n", encoding="utf-8")
    assert Workflow.from_yaml(path) == Workflow.from_yaml(str(path)) == Workflow("w", "d", [Step("a", "t")])
    path.write_text(HEAD + "steps:\n  - {key: a, tusk: t}\n", encoding="utf-8")
    assert faults_of(path)[0].startswith(f"{path}:4:5: steps[0].task: is required")


def test_text_on_one_line_is_text_if_it_is_a_mapping() -> None:
    assert Workflow.from_yaml("{name: w, task_description: d, steps: [{key: a, task: t}]}").name == "w"


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Workflow.from_yaml(tmp_path / "none.yaml")


def test_every_mistake_is_listed_with_line_column_field_and_what_was_meant() -> None:
    text = """\
name: x
deadline_s: -5
steps:
  - key: fetch
    tsk: shop.fetch
    args:
      - 1
      - .nan
  - key: parse
    task: shop.pars
    after: fecth
    when: results.fetch-1
    on_failure: ignore
    retry:
      max_retries: 3
  - key: store
    task: shop.store
    after:
      - parse
      - store
    args: [{$expr: results.fetch}, {$expr: input, x: 1}]
"""
    assert faults_of(text, known_tasks=["shop.parse", "shop.store"]) == [
        "<text>:1:1: task_description: is required: say what the workflow is for",
        "<text>:2:1: deadline_s: must be greater than 0, not -5",
        "<text>:4:5: steps[0].task: is required (only a step with `approval` can do without)",
        '<text>:5:5: steps[0].tsk: unknown field (did you mean "task"?)',
        "<text>:8:9: steps[0].args[1]: nan is no JSON number",
        '<text>:10:5: steps[1].task: unknown task "shop.pars" (did you mean "shop.parse"?)',
        '<text>:11:5: steps[1].after: unknown step "fecth" (did you mean "fetch"?)',
        (
            "<text>:12:5: steps[1].when: syntax error at column 14, near -1"
            ' (a step key with "-" in it is quoted: results."a-b")'
        ),
        "<text>:13:5: steps[1].on_failure: must be 'fail', 'continue' or 'pause', not \"ignore\"",
        '<text>:15:7: steps[1].retry.max_retries: unknown field (did you mean "max_attempts"?)',
        "<text>:18:5: steps[2].after: cycle: store → store (an arrow leads to the step that waits)",
        (
            '<text>:21:36: steps[2].args[1]: "$expr" must be the only key of its object, next to it are: x'
            ' (data with such a key goes inside {"$literal": …})'
        ),
    ]


def test_a_field_written_twice_is_refused_where_it_is_repeated() -> None:
    text = HEAD + "steps:\n  - key: a\n    task: t\n    key: b\n    args: [{x: 1, x: 2}]\n"
    assert faults_of(text) == [
        "<text>:6:5: steps[0].key: is there twice",
        "<text>:7:19: steps[0].args[0].x: is there twice",
    ]


@pytest.mark.parametrize(("text", "said"), [("\n", "null"), ("just text\n", '"just text"'), ("a: [\n", "not YAML: ")])
def test_what_is_no_mapping_or_no_yaml_is_refused(text: str, said: str) -> None:
    assert any(said in fault for fault in faults_of(text)), faults_of(text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_bytes(b"name: \xff")
    assert faults_of(path)[0].startswith(f"{path}:1:1: not YAML: ")


def test_an_anchor_and_a_merge_key_save_writing() -> None:
    text = HEAD + (
        "steps:\n"
        "  - &base {key: a, task: t, queue: q, retry: {max_attempts: 3}}\n"
        "  - {<<: *base, key: b}\n"
        "  - {key: c, task: u, <<: [{queue: r}, *base]}\n"
    )
    a, b, c = Workflow.from_yaml(text).plan.steps
    assert b == a.model_copy(update={"key": "b"})
    assert (c.task, c.queue, c.retry) == ("u", "r", a.retry)


def test_what_is_written_has_no_anchors_though_objects_are_shared() -> None:
    shared = {"x": [1]}
    assert dump_yaml({"a": shared, "b": shared}) == "a:\n  x:\n  - 1\nb:\n  x:\n  - 1\n"


def test_scalars_are_those_of_yaml_1_2() -> None:
    """`on`, `no` and times are text, as editors and other languages read them."""
    text = "[yes, no, on, off, 1:30, 2024-01-01, 017, 0o17, 0x1F, 1e3, .5, '1', ~, null, True, =, +1, 1_0]\n"
    assert values_of(text) == [
        *("yes", "no", "on", "off", "1:30", "2024-01-01"),
        *(17, 15, 31, 1000.0, 0.5, "1", None, None, True, "=", 1, "1_0"),
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"]))
    | st.from_regex(r"[-+.~0-9a-fxo_:eEnyt<=*&! ]{0,6}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
@example({"<<": "<<", "=": "1e5", "~": "0o7", "": "", "null": "No"})
@example({"a": "x\u2028y\x85z\ufeff\t\r\n", "b": 1e22, "c": -0.0, "d": 1e-7})
def test_whatever_is_json_survives_being_written_and_read(document: dict[str, Any]) -> None:
    found = values_of(dump_yaml(document) + "\n")
    assert found == document
    assert json.dumps(found) == json.dumps(document)


@given(st.text(st.sampled_from("abk:-[]{}#&*!|>'\"%@`,? \n\t~<1."), max_size=40))
def test_no_text_makes_reading_crash(text: str) -> None:
    """Any text is a workflow or refused by our own error."""
    with pytest.raises(InvalidPlan):
        Workflow.from_yaml(text + "\n")


def test_limits_hold_for_files_too() -> None:
    text = HEAD + "steps:\n  - {key: a, task: t}\n  - {key: b, task: t}\n"
    assert faults_of(text, limits=PlanLimits(max_steps=1)) == ["<text>:3:1: steps: 2 steps, over the limit of 1"]


def test_the_json_schema_names_every_field_and_allows_the_short_forms() -> None:
    schema = json_schema()
    step = schema["$defs"]["StepSpec"]
    assert schema["required"] == ["name", "task_description", "steps"]
    assert schema["additionalProperties"] is step["additionalProperties"] is False
    assert {"key", "task", "after", "timeout", "timeout_s", "map", "retry"} <= set(step["properties"])
    assert {"type": "string"} in step["properties"]["after"]["anyOf"]
    assert {"type": "string"} in step["properties"]["map"]["anyOf"]
    assert {"type": "boolean"} in step["properties"]["approval"]["anyOf"]
    assert all(field.get("description") for field in step["properties"].values())
    assert json.loads(json.dumps(schema)) == schema
