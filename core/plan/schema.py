"""Puts the docstrings of a model's fields into its JSON Schema, as descriptions.

pydantic's `use_attribute_docstrings` would read and parse the source of every model whenever it is imported; the descriptions
are needed only where a schema or a document is made.
"""

from __future__ import annotations

import ast
from inspect import cleandoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from pydantic_core.core_schema import ModelSchema

__all__ = ["DescribedSchema", "field_docstrings"]


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field → the string that stands below it in the source; those of base classes, too."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            found |= _docstrings_in(getsource(part))
    return found


class DescribedSchema(GenerateJsonSchema):
    """For `model_json_schema`: with the docstrings of the fields."""

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        """Make the schema of one model."""
        document = super().model_schema(schema)
        for name, text in field_docstrings(schema["cls"]).items():
            document["properties"][name]["description"] = text
        return document


def _docstrings_in(source: str) -> dict[str, str]:
    return {
        field.target.id: cleandoc(below.value.value)
        for definition in ast.parse(dedent(source)).body
        if isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
