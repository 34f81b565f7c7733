"""The guide's pages, each run from top to bottom against a real worker, with the output that it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interlock.migrations import upgrade
from tests.servers import ROOT, CeleryWorker, RedisServer

from . import guide_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.timeout(300)]

GUIDE = ROOT / "docs" / "guide"
INDEX = GUIDE / "README.md"
PAGES = [*sorted(path for path in GUIDE.glob("*.md") if path != INDEX), ROOT / "docs" / "from-canvas.md"]

_QUICK = {
    "INTERLOCK_LEASE_S": "5",
    "INTERLOCK_HEARTBEAT_S": "0.5",
    "INTERLOCK_SWEEP_S": "0.2",
    "INTERLOCK_REDISPATCH_S": "3",
    "INTERLOCK_CANCEL_GRACE_S": "1.5",
    "INTERLOCK_WATCH_POLL_S": "1",
}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """The broker of all pages, and their events."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages have their reader write, and a migrated database."""
    folder = tmp_path_factory.mktemp("guide")
    for page in (INDEX, *PAGES):
        for name, text in guide_page.files(page):
            assert not (folder / name).exists(), f"{page.name}: another page has {name}, too"
            (folder / name).write_text(text, encoding="utf-8")
    upgrade(f"sqlite:///{folder / 'guide.db'}")
    return folder


@pytest.fixture(scope="module")
def environment(redis: RedisServer, folder: Path) -> Mapping[str, str]:
    """What the worker and whoever reads a page have set."""
    return {
        **_QUICK,
        "INTERLOCK_DATABASE_URL": f"sqlite:///{folder / 'guide.db'}",
        "INTERLOCK_BROKER_URL": redis.url(0),
        "INTERLOCK_REDIS_URL": redis.url(1),
        "CELERY_BROKER_URL": redis.url(0),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
    }


@pytest.fixture(scope="module", autouse=True)
def worker(folder: Path, environment: Mapping[str, str]) -> Iterator[CeleryWorker]:
    """One worker for all pages."""
    modules = sorted(path.stem for path in folder.glob("*.py") if "@app.task" in path.read_text("utf-8"))
    worker = CeleryWorker(
        "shop",
        log=folder / "worker.log",
        concurrency=4,
        env=environment,
        args=["--include", ",".join(modules)],
        cwd=folder,
    )
    with worker:
        yield worker


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_of_the_guide_does_what_it_says(
    page: Path, folder: Path, environment: Mapping[str, str], worker: CeleryWorker
) -> None:
    done = subprocess.run(
        [sys.executable, guide_page.__file__, page],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n--- the worker's log\n{worker.output[-2000:]}"


def test_every_page_is_in_the_index() -> None:
    index = INDEX.read_text(encoding="utf-8")
    assert all(f"({page.name})" in index for page in PAGES if page.parent == GUIDE)
    assert "(../from-canvas.md)" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_something_and_says_what_comes_of_it(page: Path) -> None:
    """A page whose blocks the runner does not recognise must not pass for having nothing to run."""
    run = [block for block in guide_page.read_blocks(page) if block.language == "python" and not block.file]
    assert run, page.name
    assert any(block.expected or "assert " in block.text for block in run), page.name
