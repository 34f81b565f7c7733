"""Where commands print: tables and colours for people, plain columns in a pipe, JSON for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.text import Text

    from interlock.cli.options import Options

__all__ = ["Column", "Screen"]

_PIPE_WIDTH: Final = 10_000  # nothing is cut off or wrapped where another program reads


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        right: Whether it is flush right.
        whole: Whether it is never cut off, however narrow the terminal.
        style: Colour of its cells.
    """

    title: str
    right: bool = False
    whole: bool = False
    style: str = ""


class Screen:
    """Standard output and standard error of one command.

    Colours appear on a terminal only, and not where NO_COLOR is set.

    Args:
        as_json: Print JSON instead of what people read.

    Attributes:
        as_json: As given.
        out: Standard output.
        err: Standard error.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    @classmethod
    def of(cls, options: Options) -> Screen:
        """The screen that the options ask for."""
        return cls(as_json=options.as_json)

    @property
    def is_live(self) -> bool:
        """Whether a person looks at standard output."""
        return self.out.is_terminal and not self.as_json

    @property
    def now(self) -> datetime:
        """The time that relative times count from."""
        return datetime.now(UTC)

    def document(self, value: Any) -> None:
        """Print one JSON document: indented on a terminal, on one line elsewhere."""
        click.echo(json.dumps(value, ensure_ascii=False, indent=2 if self.out.is_terminal else None, default=str))

    def record(self, value: Any) -> None:
        """Print one JSON document on a line of its own: one of many, for programs that read line by line."""
        click.echo(json.dumps(value, ensure_ascii=False, default=str))

    def line(self, text: str | Text = "", style: str | None = None) -> None:
        """Print a line to standard output."""
        self.out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str | Text, style: str = "dim") -> None:
        """Say something to the person, beside the output proper; programs that asked for JSON do not get it."""
        if not self.as_json:
            self.err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def done(self, document: dict[str, Any], sentence: str) -> None:
        """Confirm what was done: the document as JSON, or the sentence."""
        if self.as_json:
            self.document(document)
        else:
            self.line(sentence)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
        """Print a table without lines; in a pipe its columns keep their full width."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=True,
                overflow="fold" if column.whole else "ellipsis",
                min_width=None,
                style=column.style or None,
            )
        for row in rows:
            table.add_row(*row)
        self.out.print(table, highlight=False)


def _console(stream: Any) -> Console:
    is_terminal = bool(getattr(stream, "isatty", bool)())
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if is_terminal else _PIPE_WIDTH)
