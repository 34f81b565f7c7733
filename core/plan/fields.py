"""The types of the models' fields, with their checks and messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from interlock.core.errors import ExpressionError
from interlock.core.json_values import Json, JsonPath, Problem, plain_json
from interlock.core.names import NAME_PATTERN

from .expressions import EXPR, LITERAL, marker_fault, read_expression
from .faults import refuse
from .routing import routing_problems

__all__ = [
    "Count",
    "Expression",
    "JsonList",
    "JsonObject",
    "Key",
    "Keys",
    "Prose",
    "Routing",
    "Seconds",
    "Text",
    "Texts",
    "empty_for_true",
    "over_for_text",
]

_MAX_EXPRESSION: Final = 20_000
_MAX_SECONDS: Final = 10 * 366 * 86_400


def _sound_expression(text: str) -> str:
    refuse(_expression_problems(text, ()))
    return text


def _json_list(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value  # pydantic says what it must be
    return _json(value)


def _json_object(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return _json(dict(value))


def _json(value: object) -> Json:
    copy, problems = plain_json(value)
    refuse([*problems, *_argument_problems(copy, ())])
    return copy


def _argument_problems(value: Json, path: JsonPath) -> Iterator[Problem]:
    if isinstance(value, dict):
        if message := marker_fault(value):
            yield path, message
        elif isinstance(text := value.get(EXPR), str):
            yield from _expression_problems(text, path)
        elif LITERAL not in value:
            for key, inner in value.items():
                yield from _argument_problems(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _argument_problems(inner, (*path, index))


def _expression_problems(text: str, path: JsonPath) -> Iterator[Problem]:
    try:
        read_expression(text)
    except ExpressionError as error:
        yield path, error.detail


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _routing(options: dict[str, Json]) -> dict[str, Json]:
    refuse(routing_problems(options))
    return options


def over_for_text(value: object) -> object:
    """Let the list's expression stand for a whole `map`."""
    return {"over": value} if isinstance(value, str) else value


def empty_for_true(value: object) -> object:
    """Let `true` stand for an object with nothing but defaults."""
    return {} if value is True else value


Key: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Keys: TypeAlias = Annotated[tuple[Key, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Seconds: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=_MAX_SECONDS)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Expression: TypeAlias = Annotated[str, StringConstraints(max_length=_MAX_EXPRESSION), AfterValidator(_sound_expression)]
Texts: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]
Prose: TypeAlias = Annotated[str, StringConstraints(max_length=100_000)]
JsonList: TypeAlias = Annotated[list[Any], BeforeValidator(_json_list)]
JsonObject: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_json_object)]
Routing: TypeAlias = Annotated[JsonObject, AfterValidator(_routing)]
