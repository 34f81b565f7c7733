"""Reads the YAML file that attaches guards to edges; a mistake is reported with its place and what was meant."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from interlock.core.errors import ConfigurationError
from interlock.core.model.transitions import STEP_TABLE, TABLES, WORKFLOW_TABLE
from interlock.core.plan.faults import UNKNOWN_FIELD, Suggestions, faults_of, refuse
from interlock.core.yaml_documents import FastLoader, NotYaml, read_document

from .guard_rules import GuardRule, GuardRules
from .guards import known_guards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interlock.core.json_values import Problem

__all__ = ["load_guard_rules"]

logger = logging.getLogger("interlock.guards")

# Transitions that are only ever conclusions or reports: nobody but `StateMachine.transition_to` asks a guard on them.
_REPORTED: Final = frozenset(
    {
        (WORKFLOW_TABLE.entity_type, "executing", "waiting_approval"),
        (WORKFLOW_TABLE.entity_type, "executing", "completed"),
        (WORKFLOW_TABLE.entity_type, "executing", "failed"),
        (STEP_TABLE.entity_type, "running", "waiting_approval"),
        (STEP_TABLE.entity_type, "running", "failed"),
        (STEP_TABLE.entity_type, "pending", "skipped"),
    },
)


class _Loader(FastLoader):  # type: ignore[misc]
    """Numbers and words such as `no` are names here too: a workflow may be called so. Only null is none."""

    yaml_implicit_resolvers: Final[dict[str, Any]] = {
        first: [resolver for resolver in FastLoader.yaml_implicit_resolvers[first] if resolver[0].endswith(":null")]
        for first in ("~", "n", "N", "")
    }


def _name(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    message = "must be a name"
    raise ValueError(message)


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        message = f'unknown {what} "{name}"{Suggestions().did_you_mean(name, known)}; known: {", ".join(known)}'
        raise ValueError(message)
    return name


def _guards(value: object) -> tuple[str, ...]:
    if value == []:
        message = "names no guard"
        raise ValueError(message)
    names: list[str] = []
    problems: list[Problem] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        try:
            names.append(_one_of("guard", _name(item), known_guards()))
        except ValueError as error:
            problems.append(((index,) if isinstance(value, list) else (), str(error)))
    refuse(problems)
    return tuple(names)


_Name = Annotated[str, BeforeValidator(_name)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    entity: Annotated[_Name, AfterValidator(lambda name: _one_of("entity", name, tuple(TABLES)))]
    source: _Name = Field(alias="from")
    target: _Name = Field(alias="to")
    guard: Annotated[tuple[str, ...], BeforeValidator(_guards)]
    workflow: Annotated[str | None, BeforeValidator(_name)] = None
    step: Annotated[str | None, BeforeValidator(_name)] = None

    @field_validator("source", "target")
    @classmethod
    def _is_state(cls, name: str, info: ValidationInfo) -> str:
        entity = info.data.get("entity")
        if entity is None:  # a fault of its own
            return name
        return _one_of(f"state of {entity}", name, [state.value for state in TABLES[entity].states])

    @model_validator(mode="after")
    def _is_edge(self) -> Self:
        table: Any = TABLES[self.entity]
        targets = table.targets[table.parse(self.source)]
        if self.target not in targets:
            allowed = ", ".join(targets) or "nothing, it is terminal"
            edge = f"{self.source} → {self.target}"
            refuse([(("to",), f"{edge} is no edge of {self.entity}; allowed: {allowed}")])
        if self.step is not None and self.entity != STEP_TABLE.entity_type:
            refuse([(("step",), f"is only for {STEP_TABLE.entity_type}")])
        return self

    def rule(self, place: str) -> GuardRule:
        return GuardRule(self.entity, self.source, self.target, self.guard, self.workflow, self.step, place)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    guards: tuple[_Entry, ...]


def load_guard_rules(path: str | Path) -> GuardRules:
    """Read a guards file.

    Args:
        path: A YAML file with one field, `guards`: a list of entries with `entity`, `from`, `to`, `guard` (a name or a list of
            names) and, optionally, `workflow` and `step`. The guards must be registered before.

    Raises:
        ConfigurationError: The file cannot be read or has faults; each is named as `file:line:column: field: what`.
    """
    try:
        document = read_document(str(path), Path(path).read_bytes(), _Loader)
    except OSError as error:
        msg = f"guards_file: {path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error
    except NotYaml as error:
        msg = f"guards_file: {error}"
        raise ConfigurationError(msg) from error
    entries, found = _read(document.value)
    placed = [
        (document.place(where, of_value=not message.startswith(UNKNOWN_FIELD)), (where, message))
        for where, message in found
    ]
    lines = document.lines(placed, "file")
    if lines:
        raise ConfigurationError("guards_file:\n  " + "\n  ".join(lines))
    rules = [
        entry.rule(f"{path}:{document.place(('guards', index), of_value=True)[0]}")
        for index, entry in enumerate(entries)
    ]
    for rule in rules:
        if (rule.entity_type, rule.from_state, rule.to_state) in _REPORTED:
            edge = f"{rule.from_state} → {rule.to_state}"
            logger.warning("%s: the engine does not ask before %s, which only says what has happened", rule.place, edge)
    return GuardRules(rules)


def _read(value: object) -> tuple[tuple[_Entry, ...], list[Problem]]:
    if value is None:
        return (), [((), "the file is empty; it needs the field guards, a list")]
    try:
        return _File.model_validate(value).guards, []
    except ValidationError as error:
        return (), [(fault.path, fault.message) for fault in faults_of(error, _File)]
