"""Expressions: what they find, what is put in, and what is said where they fail."""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import ExpressionError
from interlock.core.plan.expressions import ALL, evaluate, read_expression, references, render, truthy

if TYPE_CHECKING:
    from interlock.core.json_values import Json

CONTEXT = {
    "input": {"n": 3, "name": "x", "text": "results.a", "trap": {"$expr": "input.n"}, "empty": []},
    "results": {"a": {"files": [1, 2]}, "b-c": 7, "none": None},
    "states": {"a": "completed"},
    "workflow": {"id": "w1", "name": "demo", "session_id": "default"},
}


# JSON has no infinity and no NaN: that none comes out is `test_no_number_that_json_does_not_have_comes_out`.


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner, max_size=4)
    ),
    max_leaves=20,
)


def test_an_expression_is_replaced_by_what_it_finds_wherever_it_stands() -> None:
    args = [{"$expr": "input.n"}, {"deep": [{"$expr": 'results."b-c"'}]}, {"$expr": "results.a.files[1]"}]
    assert render(args, CONTEXT) == [3, {"deep": [7]}, 2]


@given(json_values)
def test_a_value_without_markers_is_rendered_as_itself(value: Json) -> None:
    """Plain strings are never looked into, whatever they hold."""
    assert render(value, CONTEXT) == value


@given(st.text())
def test_text_in_the_input_stays_text(text: str) -> None:
    assert render([{"$expr": "input.text"}], {"input": {"text": text}}) == [text]


@given(json_values)
def test_what_an_expression_finds_is_put_in_untouched(value: Json) -> None:
    assert render({"$expr": "input"}, {"input": value}) == value


@pytest.mark.parametrize("text", ["results.a", '{"$expr": "input.n"}', "{{input.n}}", "$expr"])
def test_a_string_that_looks_like_an_expression_is_a_string(text: str) -> None:
    assert render(text, CONTEXT) == text


def test_what_an_expression_finds_is_not_rendered_again() -> None:
    """An input that holds a marker itself stays data: input never becomes code."""
    assert render({"$expr": "input.trap"}, CONTEXT) == {"$expr": "input.n"}


def test_a_literal_passes_its_content_untouched() -> None:
    assert render([{"$literal": {"$expr": "input.n"}}], CONTEXT) == [{"$expr": "input.n"}]


def test_rendering_changes_neither_plan_nor_context() -> None:
    args, before = [{"$expr": "input.empty"}], repr(CONTEXT)
    render(args, CONTEXT)
    assert args == [{"$expr": "input.empty"}]
    assert repr(CONTEXT) == before


@pytest.mark.parametrize("value", [{"$expr": "input", "x": 1}, {"$literal": 1, "x": 1}, {"$expr": 5}])
def test_a_marker_that_is_not_alone_or_no_string_is_refused(value: Json) -> None:
    with pytest.raises(ExpressionError):
        render([value], CONTEXT)
    with pytest.raises(ExpressionError):
        references({"a": [value]} if "$expr" in value else [{"$expr": "x", **value}])


def test_what_does_not_exist_is_null() -> None:
    assert evaluate("results.nobody.x", CONTEXT) is None


@given(st.sets(st.sampled_from(["a", "b", "c"])), st.data())
def test_an_expression_reads_no_step_beyond_its_references(keys: set[str], data: st.DataObject) -> None:
    """Changing the result of a step that is not among the references never changes the outcome."""
    expression = data.draw(
        st.sampled_from(
            [
                *(f"results.{key}.x" for key in keys),
                "results.a.x || results.b.x",
                "length([results.b, input])",
                "{r: results.c}",
                "results.*.x | sort(@)",
                "@.results.a.x",
                "[results][0].b",
                "not_null(states.z, results).a",
                "(input && results).c.x",
            ]
        )
    )
    steps = read_expression(expression).steps
    results = {key: {"x": n} for n, key in enumerate("abc")}
    changed = {key: value if key in steps or ALL in steps else {"x": 99} for key, value in results.items()}
    context = {"input": {"n": 1}, "states": {}}
    assert evaluate(expression, {**context, "results": results}) == evaluate(
        expression, {**context, "results": changed}
    )


@pytest.mark.parametrize(
    "expression",
    ["length(input.n)", "sort_by(input, &n)", "input.empty[::0]", "sum(input.name)", "ceil(to_number('inf'))"],
)
def test_an_evaluation_that_fails_is_a_typed_error(expression: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(expression, CONTEXT)


@pytest.mark.parametrize(
    "expression",
    [
        "sum(input.card)",
        "sum(input.cards)",
        "join(',', input)",
        "max(input.mixed)",
        "sort_by(input.list, &card)",
        "max_by(input.list, &card)",
        "abs(input.card)",
        "keys(input.card)",
        "to_number(input.cards) || ceil(input.card)",
        "length(`1`) || input.card",
    ],
)
def test_what_failed_is_told_without_the_data(expression: str) -> None:
    """The text becomes the step's error and its history's reason, and goes to subscribers, who may see no input."""
    secret = "4111-planted"  # noqa: S105 - to be looked for
    data = {"card": secret, "cards": [secret], "mixed": [secret, 1], "list": [{"card": {"no": secret}}]}
    with pytest.raises(ExpressionError) as refused:
        evaluate(expression, {"input": data})
    assert secret not in "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    assert refused.value.detail


@pytest.mark.parametrize("text", ["nan", "inf", "1e999"])
def test_no_number_that_json_does_not_have_comes_out(text: str) -> None:
    with pytest.raises(ExpressionError, match="no JSON number"):
        evaluate("to_number(input)", {"input": text})
    with pytest.raises(ExpressionError, match="no JSON number"):
        evaluate("input", {"input": float(text)})


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_null_false_and_what_is_empty_are_false(value: Json) -> None:
    assert truthy("input", {"input": value}) is False


@pytest.mark.parametrize("value", [0, 0.0, True, "x", [0], {"a": None}])
def test_all_else_is_true_and_so_is_zero(value: Json) -> None:
    assert truthy("input", {"input": value}) is True


def test_the_error_survives_pickling() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate("results.", CONTEXT)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (again.expression, again.detail, str(again)) == (
        caught.value.expression,
        caught.value.detail,
        str(caught.value),
    )


def test_compiling_is_remembered_but_not_without_bound() -> None:
    for number in range(5000):
        read_expression(f"input.n{number}")
    info = read_expression.cache_info()
    assert info.currsize <= info.maxsize == 4096


def test_threads_may_evaluate_at_once() -> None:
    """The library's own cache is trimmed at random, by any thread."""
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(300):
                name = f"n{seed}_{number}"
                assert evaluate(f"input.{name}", {"input": {name: number}}) == number
        except BaseException as error:  # noqa: BLE001 - to be shown by the test itself
            failures.append(error)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    finally:
        sys.setswitchinterval(switch_s)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
