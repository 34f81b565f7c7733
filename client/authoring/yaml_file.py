"""Plans in YAML, read with the place of each value: a mistake is reported where it was made.

The YAML is version 1.2's core: `yes`, `on` and `12:30` are strings, dates are strings, and editors
that check with `json_schema` see the same values. Anchors and merge keys work. No tag constructs
anything, so a file can only be data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import yaml

from interlock.core.plan import Fault, PlanSpec
from interlock.core.plan.schema import DescribedSchema
from interlock.core.yaml_documents import FastLoader, NotYaml, read_document

if TYPE_CHECKING:
    from interlock.core.json_values import Json

__all__ = ["dump_yaml", "json_schema", "read_yaml"]

_Plan = TypeVar("_Plan")
_Examine: TypeAlias = Callable[[object], tuple[_Plan | None, Sequence[Fault]]]


class _Loader(FastLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: Final[dict[str, Any]] = {}


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    yaml_implicit_resolvers: Final[dict[str, Any]] = {}

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's hook
        return True


_SCALARS: Final = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)

for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"(?:{_pattern})$"),
            ["" if char == "\0" else char for char in _first],
        )


def read_yaml(source: str | Path, examine: _Examine[_Plan]) -> tuple[_Plan | None, tuple[str, ...]]:
    """Read a plan from a YAML file or text.

    Args:
        source: A path, or a string: text if it has more than one line or begins with `{`, else a
            path.
        examine: Makes a plan of the document, or says what is wrong with it.

    Returns:
        What `examine` made and no faults, or None and every fault as `file:line:column: field: …`,
        in the order of the file.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        document = read_document(*_text_of(source), _Loader)
    except NotYaml as error:
        return None, (str(error),)
    plan, faults = examine(document.value)
    placed = [(document.place(fault.path), (fault.path, fault.message)) for fault in faults]
    lines = document.lines(placed, "plan")
    return (None, lines) if lines else (plan, ())


def dump_yaml(document: Mapping[str, Json]) -> str:
    """A JSON document as YAML that `read_yaml` reads back equal."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def json_schema() -> dict[str, Json]:
    """JSON Schema (2020-12) of a workflow file, for editors and other tools."""
    schema = PlanSpec.model_json_schema(schema_generator=DescribedSchema)
    step = schema["$defs"]["StepSpec"]["properties"]
    step["timeout"] = {
        **step["timeout_s"],
        "description": "The same as timeout_s.",
        "title": "Timeout",
    }
    for name in ("name", "task_description"):  # a bare plan can be without; a workflow cannot
        text, _null = schema["properties"][name].pop("anyOf")
        del schema["properties"][name]["default"]
        schema["properties"][name] |= text
    schema["properties"]["steps"]["minItems"] = 1
    schema["required"] = ["name", "task_description", "steps"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Interlock workflow",
    }


def _text_of(source: str | Path) -> tuple[str, str | bytes]:
    is_text = isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{"))
    if is_text:
        return "<text>", str(source)
    return str(source), Path(source).read_bytes()
