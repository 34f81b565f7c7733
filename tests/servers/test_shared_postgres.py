"""The server that stays between test runs: found by those who come later, and gone when it has to be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from tests.processes import ROOT, wait_until
from tests.servers import SharedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

_ENDS_S = 20.0
_USER = """
import sys
from pathlib import Path
from tests.servers import SharedPostgres
with SharedPostgres(Path(sys.argv[1])) as server:
    server.databases.create(sys.argv[2])
    print(server.keeper_pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the servers of these tests are; outside pytest's folders, which PostgreSQL's user may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-shared-"))
    yield folder
    SharedPostgres(folder).stop()
    shutil.rmtree(folder)


def _user(folder: Path, database: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _USER, folder, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def _answer(user: subprocess.Popen[str]) -> int:
    assert user.stdout is not None
    return int(user.stdout.readline())


def test_two_that_come_at_once_share_one_server_and_it_stays(folder: Path) -> None:
    users = [_user(folder, name) for name in ("one", "two")]
    keepers = {_answer(user) for user in users}
    for user in users:
        user.communicate()
    with SharedPostgres(folder) as server:
        assert keepers == {server.keeper_pid}


def test_what_a_killed_run_has_left_is_dropped_by_the_next_that_is_alone(folder: Path) -> None:
    with ExitStack() as running:
        victim, other = (running.enter_context(_user(folder, name)) for name in ("left", "used"))
        assert _answer(victim) == _answer(other)
        victim.kill()
        victim.wait()
        with SharedPostgres(folder) as server:
            assert {"left", "used"} <= {*server.databases.names()}
        other.communicate()
    with SharedPostgres(folder) as server:
        assert server.databases.names() == []


def test_a_template_is_made_once_for_one_content_and_the_newest_two_are_kept(folder: Path) -> None:
    made: list[str] = []
    with SharedPostgres(folder) as server:
        names = [server.template(content, made.append) for content in ("a", "a", "b", "c")]
        assert names == ["template_of_a", "template_of_a", "template_of_b", "template_of_c"]
        with server.databases.fresh(names[0]) as copy, psycopg.connect(copy.replace("+psycopg", "")):
            pass
    assert len(made) == 3
    with SharedPostgres(folder) as server:
        assert server.databases.names() == ["template_of_c", "template_of_b"]


def test_a_template_that_could_not_be_made_is_tried_again(folder: Path) -> None:
    with SharedPostgres(folder) as server:
        with pytest.raises(ZeroDivisionError):
            server.template("d", lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
        assert server.template("d", lambda _: None) == "template_of_d"


def test_one_command_stops_it_and_twice_is_as_good_as_once(folder: Path) -> None:
    with SharedPostgres(folder) as server:
        databases = server.databases
        assert databases.answer()
    assert SharedPostgres(folder).stop()
    assert not databases.answer()
    assert SharedPostgres(folder).keeper_pid is None
    assert not SharedPostgres(folder).stop()


@pytest.mark.long
@pytest.mark.parametrize("how", ["its keeper is killed", "its folder is deleted", "nobody has used it for a while"])
def test_no_server_is_left_when(folder: Path, how: str) -> None:
    idle_s = 0.5 if how == "nobody has used it for a while" else 60
    with SharedPostgres(folder, idle_s=idle_s) as server:
        assert server.keeper_pid is not None
        keeper = psutil.Process(server.keeper_pid)
        postmaster, databases = keeper.children(), server.databases
        if how == "its keeper is killed":
            keeper.kill()
        elif how == "its folder is deleted":
            shutil.rmtree(folder)
    wait_until(lambda: not databases.answer(), _ENDS_S, "the server has ended")
    psutil.wait_procs(postmaster, timeout=_ENDS_S)
    assert not any(process.is_running() for process in postmaster)
    with SharedPostgres(folder) as server:
        assert server.databases.answer()
    assert SharedPostgres(folder).stop()
