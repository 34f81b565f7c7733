"""YAML as values with their places: what is refused, and where each value was written."""

from __future__ import annotations

import tracemalloc

import pytest

from interlock.core.yaml_documents import NotYaml, read_document


def _faults(text: str) -> tuple[str, ...]:
    try:
        return read_document("<text>", text).lines((), "file")
    except NotYaml as error:
        return (str(error),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [\n", "<text>:2:1: not YAML: "),
        ("a: 'x\n", "not YAML: "),
        ("a: b: c\n", "<text>:1:5: not YAML: "),
        ("\tx: 1\n", "not YAML: "),
        ("a: *nobody\n", "<text>:1:4: not YAML: "),
        ("--- {}\n--- {}\n", "<text>:2:1: not YAML: "),
        ("{name: 'a\nb', 1: 2}", 'the name of a field must be a string, not "1": quote it'),
        ("{true: 2}", 'the name of a field must be a string, not "true": quote it'),
        ("{[a]: 2}", "the name of a field must be a string, not a collection"),
        ("{a: !!python/object/apply:os.system ['true']}", "the tag python/object/apply:os.system is not supported"),
        ("{a: !!binary aGk=}", "the tag binary is not supported"),
        ("{a: !mine x}", "the tag !mine is not supported"),
        ("{a: !!set {x}}", "the tag set is not supported"),
        ("{a: !!int x}", "'x' is not a int"),
        ("{<<: 5}", "<< takes a mapping, or a list of mappings"),
        ("&a [*a]\n", "nested more than 72 deep"),
        ("&a {<<: *a, name: n}\n", "nested more than 72 deep"),
        ("&a {<<: [{<<: *a}, {x: *a}]}\n", "nested more than 72 deep"),
        ("[" * 100 + "\n", "<text>:1:73: nested more than 72 deep"),
        ("[" * 100_000 + "\n", "nested more than 72 deep"),
        ("{a: " * 100_000 + "\n", "nested more than 72 deep"),
        ("- " * 100_000 + "\n", "nested more than 72 deep"),
    ],
)
def test_what_is_no_yaml_or_more_than_data_is_refused_where_it_is(text: str, said: str) -> None:
    assert any(said in fault for fault in _faults(text)), _faults(text)


def test_anchors_that_expand_to_billions_are_refused_without_expanding_them() -> None:
    lines = ["a0: &a0 [1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    tracemalloc.start()
    try:
        faults = _faults("\n".join(lines))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert any("over 1,000,000 values, anchors expanded" in fault for fault in faults)
    assert peak < 5_000_000


def test_of_several_merged_mappings_the_first_wins() -> None:
    assert read_document("<text>", "{<<: {a: 1}, <<: {a: 2, b: 2}, c: 3}").value == {"a": 1, "b": 2, "c": 3}


def test_a_place_is_that_of_the_name_or_of_the_value_or_of_what_holds_it() -> None:
    document = read_document("<text>", "a:\n  - b: 1\n")
    path = ("a", 0, "b")
    assert (document.place(path), document.place(path, of_value=True)) == ((2, 5), (2, 8))
    assert document.place((*path, "x", 7)) == (2, 5)
    assert document.place(("z",)) == (1, 1)
    assert document.lines([((2, 8), (path, "is too small")), ((1, 1), ((), "is short"))], "file") == (
        "<text>:1:1: file: is short",
        "<text>:2:8: a[0].b: is too small",
    )
