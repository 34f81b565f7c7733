"""The files by which MAIN tells a child whom its next signal is meant for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from interlock.worker import interrupt_notes
from interlock.worker.interrupt_notes import InterruptNotes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_note_is_read_once(tmp_path: Path) -> None:
    notes = InterruptNotes(tmp_path)
    assert notes.take(17) is None
    assert notes.leave(17, "a.1")
    assert notes.take(18) is None
    assert notes.take(17) == "a.1"
    assert notes.take(17) is None


def test_while_a_signal_is_on_its_way_no_other_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = InterruptNotes(tmp_path)
    assert notes.leave(17, "a.1")
    assert not notes.leave(17, "b.1")
    monkeypatch.setattr(interrupt_notes, "_UNDERWAY_S", 0.0)
    assert notes.leave(17, "b.1")
    assert notes.take(17) == "b.1"


def test_children_find_the_folder_and_whether_the_worker_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLOCK_NOTES", raising=False)
    assert InterruptNotes.inherited() is None
    notes = InterruptNotes.create()
    inherited = InterruptNotes.inherited()
    assert inherited is not None
    assert not inherited.closing.exists()
    notes.close_down()
    assert inherited.closing.exists()
    notes.leave(os.getpid(), "a.1")
    notes.remove()
    assert not inherited.closing.parent.exists()
    assert inherited.take(os.getpid()) is None
