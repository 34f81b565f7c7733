"""The YAML file that attaches guards to edges, read with the place of each value: a mistake is reported where it was made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from interlock.core.errors import ConfigurationError
from interlock.core.model.transitions import STEP_TABLE, TABLES, WORKFLOW_TABLE
from interlock.core.plan.faults import Suggestions
from interlock.core.yaml_documents import TooDeep, compose, position_of

from .guard_rules import GuardRule, GuardRules
from .guards import find_guard, known_guards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["load_guard_rules"]

logger = logging.getLogger("interlock.guards")

_FIELDS: Final = ("entity", "from", "to", "guard", "workflow", "step")
_REQUIRED: Final = ("entity", "from", "to", "guard")

# Moves that are only ever conclusions or reports; a guard on them is asked by nobody but `StateMachine.transition_to`.
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


def load_guard_rules(path: str | Path) -> GuardRules:
    """Read a guards file.

    Args:
        path: A YAML file with one field, `guards`: a list of entries with `entity`, `from`, `to`, `guard` (a name or a list of
            names) and, optionally, `workflow` and `step`. The guards must be registered before.

    Raises:
        ConfigurationError: The file cannot be read or has faults; each is named as `file:line:column: field: what`.
    """
    name = str(path)
    try:
        node = compose(Path(path).read_bytes())
    except OSError as error:
        msg = f"guards_file: {name} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error
    except yaml.YAMLError as error:
        msg = f"guards_file: {_syntax_fault(name, error)}"
        raise ConfigurationError(msg) from error
    reading = _Reading(name)
    rules = reading.document(node)
    if reading.faults:
        raise ConfigurationError("guards_file:\n  " + "\n  ".join(reading.faults))
    for rule in rules:
        if (rule.entity_type, rule.from_state, rule.to_state) in _REPORTED:
            edge = f"{rule.from_state} → {rule.to_state}"
            logger.warning("%s: the engine does not ask before %s, which only says what has happened", rule.place, edge)
    return GuardRules(rules)


def _syntax_fault(name: str, error: yaml.YAMLError) -> str:
    if isinstance(error, TooDeep):
        line, column = error.position
        return f"{name}:{line}:{column}: {error}"
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    return f"{place}: not YAML: {said}"


@dataclass(slots=True)
class _Reading:
    """Turns the nodes of one file into rules, and collects what is wrong with their places."""

    name: str
    faults: list[str] = field(default_factory=list)
    _suggestions: Suggestions = field(default_factory=Suggestions)

    def document(self, node: yaml.Node | None) -> list[GuardRule]:
        if node is None:
            self.faults.append(f"{self.name}:1:1: the file is empty; it needs the field guards, a list")
            return []
        fields = self._fields(node, "", ("guards",), ("guards",))
        if "guards" not in fields:
            return []
        entries = fields["guards"]
        if not isinstance(entries, yaml.SequenceNode):
            self._fault(entries, "guards", "must be a list")
            return []
        rules = [self._rule(entry, f"guards[{index}]") for index, entry in enumerate(entries.value)]
        return [rule for rule in rules if rule is not None]

    def _rule(self, node: yaml.Node, path: str) -> GuardRule | None:
        before = len(self.faults)
        fields = self._fields(node, f"{path}.", _FIELDS, _REQUIRED)
        if len(self.faults) > before:
            return None
        entity = self._choice(fields["entity"], f"{path}.entity", "entity", tuple(TABLES))
        guards = self._guards(fields["guard"], f"{path}.guard")
        workflow, step = (
            self._text(fields[name], f"{path}.{name}") if name in fields else None for name in ("workflow", "step")
        )
        if entity is None:
            return None
        if step is not None and entity != STEP_TABLE.entity_type:
            self._fault(fields["step"], f"{path}.step", f"is only for {STEP_TABLE.entity_type}")
        source, target = self._edge(entity, fields, path)
        if len(self.faults) > before:
            return None
        line = position_of(node)[0]
        return GuardRule(entity, source, target, guards, workflow, step, place=f"{self.name}:{line}")

    def _edge(self, entity: str, fields: Mapping[str, yaml.Node], path: str) -> tuple[str, str]:
        table: Any = TABLES[entity]
        states = tuple(state.value for state in table.states)
        source, target = (
            self._choice(fields[name], f"{path}.{name}", f"state of {entity}", states) for name in ("from", "to")
        )
        if source is None or target is None:
            return "", ""
        targets = table.targets[table.parse(source)]
        if target not in targets:
            allowed = ", ".join(targets) or "nothing, it is terminal"
            self._fault(fields["to"], f"{path}.to", f"{source} → {target} is no edge of {entity}; allowed: {allowed}")
        return source, target

    def _guards(self, node: yaml.Node, path: str) -> tuple[str, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self._fault(node, path, "names no guard")
        names = []
        for item in nodes:
            name = self._text(item, path)
            if name is None:
                continue
            try:
                find_guard(name)
            except ConfigurationError:
                self._unknown(item, path, "guard", name, known_guards())
            names.append(name)
        return tuple(names)

    def _fields(
        self, node: yaml.Node, path: str, known: Sequence[str], required: Sequence[str]
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, path.rstrip(".") or "file", f"must be an object with {', '.join(known)}")
            return {}
        fields: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in known:
                hint = self._suggestions.did_you_mean(key, known)
                self._fault(key_node, f"{path}{key}", f"unknown field{hint}; known: {', '.join(known)}")
            elif key in fields:
                self._fault(key_node, f"{path}{key}", "is there twice")
            else:
                fields[key] = value
        for key in required:
            if key not in fields:
                self._fault(node, f"{path}{key}", "is required")
        return fields

    def _choice(self, node: yaml.Node, path: str, what: str, known: Sequence[str]) -> str | None:
        text = self._text(node, path)
        if text is None or text in known:
            return text
        self._unknown(node, path, what, text, known)
        return None

    def _text(self, node: yaml.Node, path: str) -> str | None:
        # Numbers and words such as `no` are names here too: a workflow may be called so.
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null" and node.value.strip():
            return str(node.value)
        self._fault(node, path, "must be a name")
        return None

    def _unknown(self, node: yaml.Node, path: str, what: str, name: str, known: Sequence[str]) -> None:
        hint = self._suggestions.did_you_mean(name, known)
        self._fault(node, path, f'unknown {what} "{name}"{hint}; known: {", ".join(known)}')

    def _fault(self, node: yaml.Node, path: str, message: str) -> None:
        line, column = position_of(node)
        self.faults.append(f"{self.name}:{line}:{column}: {path}: {message}")
