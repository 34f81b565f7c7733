"""A page of the guide as its reader uses it: files to write, Python to run in order, commands to type, output to expect.

Run as a script it does so, in the working folder: `python guide_page.py PAGE.md`.

- A `python` or `yaml` block that begins with `# name.ext` is that file.
- Every other `python` block is run, all in one namespace.
- A `console` block is run by the shell; `$RUN` is the page's `run_id`.
- What a line prints stands behind it as `# …`, or all that the block prints in the `text` block that follows it. There, `…`
  stands for what differs from run to run.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Block", "files", "read_blocks"]

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"\A# ([\w.-]+\.(?:py|yaml))\n")
_PRINTED: Final = re.compile(r"^.*\bprint\(.*\)  # (.+)$", re.MULTILINE)
_COMMAND_TIMEOUT_S: Final = 90


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind its opening fence.
        text: What is in it.
        line: Number of its first line in the page.
        output: The `text` block that follows it, if one does.
    """

    language: str
    text: str
    line: int
    output: str | None = None

    @property
    def file(self) -> str | None:
        """Name of the file that it is, if it is one."""
        found = _FILE.match(self.text)
        return found[1] if found and self.language in ("python", "yaml") else None

    @property
    def expected(self) -> list[str]:
        """The lines that it prints, as the page says."""
        if self.output is not None:
            return self.output.splitlines()
        return _PRINTED.findall(self.text) if self.language == "python" else []


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page in order, each with the output that is shown for it."""
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    blocks = []
    for number, block in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        follows = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
        output = after[2] if after is not None and follows else None
        blocks.append(Block(block[1], block[2], text.count("\n", 0, block.start(2)) + 1, output))
    return blocks


def files(page: Path) -> Iterator[tuple[str, str]]:
    """Name and content of each file that a page has its reader write."""
    return ((block.file, block.text) for block in read_blocks(page) if block.file)


def _run_python(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    # The empty lines give tracebacks the page's own line numbers.
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, namespace)  # noqa: S102 - that is what this is for
    return printed.getvalue()


def _run_console(block: Block, namespace: dict[str, Any]) -> str:
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", block.text],  # noqa: S607 - as its reader would
        env={**os.environ, "RUN": str(namespace.get("run_id", ""))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_COMMAND_TIMEOUT_S,
    )
    if done.returncode and block.output is None:  # a command that is shown to be refused shows what it says
        message = f"exit code {done.returncode}:\n{block.text}\n{done.stdout}"
        raise AssertionError(message)
    return done.stdout


def _check_output(block: Block, printed: str) -> None:
    expected = block.expected
    if block.language == "console" and not expected:
        return
    lines = [line.rstrip() for line in printed.splitlines()]
    patterns = [".*".join(map(re.escape, line.rstrip().split("…"))) for line in expected]
    if len(lines) != len(patterns) or not all(map(re.fullmatch, patterns, lines)):
        said = "\n".join(expected)
        message = f"line {block.line}: the page says that it prints\n{said}\nand it printed\n{printed}"
        raise AssertionError(message)


def _run(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in read_blocks(page):
        if block.language == "python" and not block.file:
            _check_output(block, _run_python(block, page, namespace))
        elif block.language == "console":
            _check_output(block, _run_console(block, namespace))


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # noqa: PTH109 - the page's modules are in the working folder
    _run(Path(sys.argv[1]))
