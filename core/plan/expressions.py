"""Evaluates JMESPath expressions over a workflow's input, results and states.

An argument that is the object `{"$expr": "<JMESPath>"}` is replaced by what the expression finds.
Nothing else is ever interpreted: plain strings stay as they are, and what an expression finds is
put in whole and not looked at again, so that input which looks like an expression stays text.
`{"$literal": …}` passes its content untouched, for data that has such keys itself.

An expression sees `input`, `results` and `states` (each by step key), `workflow` (`id`, `name`,
`session_id`) and, in the arguments of a mapped step, `item` and `index`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jmespath.exceptions import JMESPathError, JMESPathTypeError

from interlock.core.errors import ExpressionError

from .expression_syntax import ALL, Reading, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.json_values import Json, JsonPath

__all__ = [
    "ALL",
    "EXPR",
    "LITERAL",
    "embedded",
    "evaluate",
    "marker_fault",
    "read_expression",
    "references",
    "render",
    "truthy",
]

EXPR: Final = "$expr"
LITERAL: Final = "$literal"

# JMESPathError is a ValueError; the others are what its functions let through (ceil of infinity)
_EVALUATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@lru_cache(maxsize=4096)
def read_expression(expression: str) -> Reading:
    """Parse an expression, or remember it: what it reads, and how to evaluate it.

    Raises:
        ExpressionError: It does not parse, or calls or names what does not exist.
    """
    return read(expression)


def evaluate(expression: str, context: Mapping[str, Any]) -> Json:
    """What the expression finds in `context`; None (JSON null) where there is nothing.

    Raises:
        ExpressionError: It does not parse, cannot be evaluated here, or gives infinity or NaN.
    """
    reading = read_expression(expression)
    try:
        found = reading.parsed.search(context)
    except _EVALUATION_ERRORS as error:
        raise ExpressionError(expression, _why(error)) from None  # a chained one would quote data in a traceback
    if isinstance(found, float) and not math.isfinite(found):
        raise ExpressionError(expression, f"gives {found}, which is no JSON number")
    return found


def _why(error: Exception) -> str:
    """What is wrong, without the data: the text goes into the history and to subscribers, who may not see inputs and results."""
    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {expected}, not {error.actual_type}"
    if isinstance(error, JMESPathError | ArithmeticError | TypeError):  # these speak of the expression, and of types
        return " ".join(str(error).split()) or type(error).__name__
    return f"cannot be evaluated here ({type(error).__name__})"


def truthy(expression: str, context: Mapping[str, Any]) -> bool:
    """Whether a condition holds: null, false, "", [] and {} are false, all else (0 too) is true.

    Raises:
        ExpressionError: As for `evaluate`.
    """
    found = evaluate(expression, context)
    return not (found is None or found is False or found in ("", [], {}))


def render(value: Json, context: Mapping[str, Any]) -> Json:
    """Replace each `{"$expr": …}` inside a JSON value, and unwrap each `{"$literal": …}`.

    Args:
        value: Arguments as the plan holds them; not changed.
        context: What expressions see.

    Returns:
        A new value; parts of it may be shared with `value` and `context`.

    Raises:
        ExpressionError: As for `evaluate`; or a marker is not the only key of its object.
    """
    if isinstance(value, Mapping):
        marker = _marker(value)
        if marker is None:
            return {key: render(inner, context) for key, inner in value.items()}
        return value[LITERAL] if marker == LITERAL else evaluate(value[EXPR], context)
    if isinstance(value, list | tuple):
        return [render(inner, context) for inner in value]
    return value


def references(value: Json) -> frozenset[str]:
    """Keys of the steps that the expressions inside a JSON value read, with `ALL` for "any".

    Raises:
        ExpressionError: An expression does not parse, or a marker is not the only key.
    """
    steps: set[str] = set()
    for _, expression in embedded(value):
        steps |= read_expression(expression).steps
    return frozenset(steps)


def embedded(value: Json, path: JsonPath = ()) -> Iterator[tuple[JsonPath, str]]:
    """Every expression inside a JSON value, with the path of the object that holds it, in order.

    Raises:
        ExpressionError: A marker is not the only key of its object, or not a string.
    """
    if isinstance(value, Mapping):
        marker = _marker(value)
        if marker == EXPR:
            yield path, value[EXPR]
        elif marker is None:
            for key, inner in value.items():
                yield from embedded(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from embedded(inner, (*path, index))


def marker_fault(value: Mapping[Any, Any]) -> str | None:
    """What is wrong with the use of `$expr` or `$literal` in an object; None when nothing is."""
    for marker in (EXPR, LITERAL):
        if marker in value and len(value) > 1:
            others = ", ".join(sorted(str(key) for key in value if key != marker))
            return (
                f'"{marker}" must be the only key of its object, next to it are: {others} '
                f'(data with such a key goes inside {{"{LITERAL}": …}})'
            )
    if EXPR in value and not isinstance(value[EXPR], str):
        return f'"{EXPR}" must be a JMESPath string, not {type(value[EXPR]).__name__}'
    return None


def _marker(value: Mapping[Any, Any]) -> str | None:
    marker = EXPR if EXPR in value else LITERAL if LITERAL in value else None
    if marker is not None and (fault := marker_fault(value)):
        raise ExpressionError(str(value[marker]), fault)
    return marker
