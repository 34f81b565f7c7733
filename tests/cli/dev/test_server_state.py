"""Who has a data folder, and whether to believe it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from interlock.cli.dev.server_state import DataFolder, find_server
from interlock.cli.failures import ServerRunning
from tests.cli.conftest import STATE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("running")
def test_a_running_server_is_found_by_its_folder(data_dir: Path) -> None:
    assert find_server(data_dir) == STATE
    assert (data_dir / "server.json").stat().st_mode & 0o077 == 0, "it holds passwords"


@pytest.mark.usefixtures("running")
def test_a_second_server_is_told_who_has_the_folder(data_dir: Path) -> None:
    with pytest.raises(ServerRunning, match="1234") as caught:
        DataFolder(data_dir).acquire()
    assert caught.value.pid == 1234


def test_a_folder_that_was_given_up_tells_of_no_server(data_dir: Path, running: DataFolder) -> None:
    running.release()
    running.release()
    assert find_server(data_dir) is None
    DataFolder(data_dir).acquire()


@pytest.mark.integration
def test_a_server_that_was_killed_is_not_believed(data_dir: Path) -> None:
    """Its file is still there, its lock is not."""
    code = (
        "import os, sys; from pathlib import Path; from interlock.cli.dev.server_state import *;"
        "folder = DataFolder(Path(sys.argv[1])); folder.acquire();"
        "folder.publish(ServerState(os.getpid(), 'a', 'b', 'c', 'd', 'e')); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(data_dir)], check=False)
    assert done.returncode == -9
    assert (data_dir / "server.json").exists()
    assert find_server(data_dir) is None


def test_a_folder_that_is_not_there_tells_of_no_server(tmp_path: Path) -> None:
    assert find_server(tmp_path / "gone") is None
