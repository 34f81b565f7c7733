"""The table of settings in README.md, made of `core/settings.py`."""

from __future__ import annotations

from typing import Final

from interlock.core.settings import Settings

__all__ = ["render"]

_SUFFIX_UNITS: Final = {"_s": " s", "_bytes": " bytes"}


def render() -> str:
    """The table as Markdown: each setting, its default, and what it means."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{name}` | {_default(name, field.default)} | {_one_line(field.description)} |")
    return "\n".join([*lines, ""])


def _default(name: str, value: object) -> str:
    if value is None:
        return "none"
    if not isinstance(value, int | float):
        return f"`{value}`"
    unit = next((unit for suffix, unit in _SUFFIX_UNITS.items() if name.endswith(suffix)), "")
    return f"{value:,}{unit}"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
