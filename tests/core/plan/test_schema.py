from __future__ import annotations

from pydantic import BaseModel

from interlock.core.plan.schema import DescribedSchema, field_docstrings


class Parcel(BaseModel):
    """What is sent."""

    weight_kg: float
    """How heavy it is.

    With its box.
    """
    label: str = ""


class Express(Parcel):
    """A parcel in a hurry."""

    hours: int
    """How soon."""


def test_the_string_below_a_field_says_what_it_is_for_base_classes_too() -> None:
    assert field_docstrings(Express) == {"weight_kg": "How heavy it is.\n\nWith its box.", "hours": "How soon."}


def test_a_schema_has_the_docstrings_of_its_fields_as_descriptions() -> None:
    properties = Express.model_json_schema(schema_generator=DescribedSchema)["properties"]
    assert properties["hours"]["description"] == "How soon."
    assert "description" not in properties["label"]
