"""Files by which MAIN tells a pool's child which attempt its next soft signal is meant for, and that the worker shuts down."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Final

__all__ = ["SOFT_SIGNAL", "InterruptNotes"]

SOFT_SIGNAL: Final = signal.SIGUSR1
"""Raises in a running body; see `worker.child.body_interruption`."""

_NOTES_VARIABLE: Final = "INTERLOCK_NOTES"
_CLOSING: Final = "closing"
_UNDERWAY_S: Final = (
    1.0  # a Python handler runs at the next bytecode; a body that sits in C code for longer is told again
)


class InterruptNotes:
    """The folder: one file per child, with the id of the attempt that the next signal is meant for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls) -> InterruptNotes:
        """Make the folder; children find it by an environment variable, however they are started."""
        folder = Path(tempfile.mkdtemp(prefix="interlock-"))
        os.environ[_NOTES_VARIABLE] = str(folder)
        return cls(folder)

    @classmethod
    def inherited(cls) -> InterruptNotes | None:
        """The folder of this process's MAIN."""
        folder = os.environ.get(_NOTES_VARIABLE)
        return cls(Path(folder)) if folder else None

    def leave(self, pid: int, task_id: str) -> bool:
        """Name the attempt that the next signal to `pid` is meant for.

        Returns:
            False where an earlier signal is still on its way: send no other, it would find no note of its own.
        """
        with contextlib.suppress(OSError):
            if time.time() - (self._folder / str(pid)).stat().st_mtime < _UNDERWAY_S:
                return False
        written = self._folder / f"{pid}.new"
        written.write_text(task_id)
        written.replace(self._folder / str(pid))
        return True

    def take(self, pid: int) -> str | None:
        """Read and remove the note for `pid`; None where there is none."""
        note = self._folder / str(pid)
        try:
            text = note.read_text()
            note.unlink()
        except OSError:
            return None
        return text

    def close_down(self) -> None:
        """Tell every child that the worker is shutting down: what runs may end, and no step is gone on to."""
        with contextlib.suppress(OSError):
            (self._folder / _CLOSING).touch()

    @property
    def closing(self) -> Path:
        """The file that is there once the worker is shutting down."""
        return self._folder / _CLOSING

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        for note in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                note.unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
