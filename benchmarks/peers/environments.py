"""Builds a peer's environment, with what it is pinned to, and keeps it for the next run."""

from __future__ import annotations

import subprocess
import sys
import venv
from typing import TYPE_CHECKING, Final

from benchmarks.options import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PINS", "environment", "versions"]

PINS: Final[Mapping[str, tuple[str, ...]]] = {
    "dbos": ("dbos==3.4.0", "psycopg[binary]==3.3.9"),
    "director": ("celery-director==0.10.0", "redis==4.4.4"),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
}
"""celery-director asks for its own Celery, which is an older one."""

_CACHE = ROOT / "benchmarks" / ".cache" / "peers"


def environment(peer: str) -> Path:
    """The Python of a peer's environment, which is built where there is none with these pins.

    Raises:
        RuntimeError: It cannot be installed; the message has what pip says.
    """
    folder = _CACHE / peer
    python = folder / "bin" / "python"
    stamp = folder / "pins"
    wanted = f"{sys.version_info[:2]} {' '.join(PINS[peer])}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"building the environment of {peer}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-E", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *PINS[peer]]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode:
            message = f"{peer} cannot be installed:\n{done.stderr}"
            raise RuntimeError(message)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(peer: str) -> str:
    """What was installed of what matters, for the report."""
    freeze = [str(environment(peer)), "-E", "-m", "pip", "--disable-pip-version-check", "freeze"]
    lines = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split()
    matters = ("dbos", "celery-director", "celery", "procrastinate", "psycopg", "SQLAlchemy")
    return ", ".join(line.replace("==", " ") for line in lines if line.partition("==")[0] in matters)
