"""What an expression reads, and why one is refused, without evaluating it."""

from __future__ import annotations

import pytest

from interlock.core.errors import ExpressionError
from interlock.core.plan.expressions import ALL, read_expression, references


@pytest.mark.parametrize(
    ("expression", "steps"),
    [
        ("input.n", set()),
        ("results.a", {"a"}),
        ('results."b-c".x[0].y', {"b-c"}),
        ("states.a == 'failed' || results.c.ok", {"a", "c"}),
        ("[results.a, results.b]", {"a", "b"}),
        ("{x: results.a.y, z: input.results.q}", {"a"}),
        ("results.[a, b]", {"a", "b"}),
        ("results.{x: a, y: b.c}", {"a", "b"}),
        ("results | a.b", {"a"}),
        ("results.a[*].b.c | [0]", {"a"}),
        ("results.a.files[0:2]", {"a"}),
        ("input.l[?x == 'y'].results", set()),
        ("sort_by(results.a.l, &results)", {"a"}),
        ("results.*", {ALL}),
        ("values(results)", {ALL}),
        ("results", {ALL}),
        ("@", {ALL}),
        ("* | [0]", {ALL}),
        ("(results || input).x", {ALL}),
        ("map(&results.a, [@])", {ALL}),
        ("results.a && values(states)", {"a", ALL}),
        ("item.x && index", set()),
    ],
)
def test_the_steps_that_an_expression_reads_are_known_before_it_runs(expression: str, steps: set[str]) -> None:
    assert read_expression(expression).steps == steps
    assert references({"x": [{"$expr": expression}]}) == steps


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "is empty"),
        ("results.", "syntax error at column 9"),
        ("results.a-b", 'at column 10, near \'-\' (a step key with "-" in it is quoted: results."a-b")'),
        ("result.a", "unknown name result (did you mean results?)"),
        ("foo", "unknown name foo (there are input, results"),
        ("lenght(input)", "unknown function lenght (did you mean length?)"),
        ("length(input, input)", "length() takes 1 arguments, not 2"),
        ("merge()", "merge() takes at least 1 arguments, not 0"),
        ("&input", "`&` is only for arguments"),
        ("[&input]", "`&` is only for arguments"),
        ("!" * 100_000 + "input", "nested too deeply"),
    ],
)
def test_a_wrong_expression_is_refused_with_the_place_and_what_was_meant(expression: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read_expression(expression)
    assert said in caught.value.detail
    assert caught.value.expression == expression
