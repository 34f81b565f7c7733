"""`verify` of 1,000,000 rows of history needs no more memory than of 10,000."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import open_database
from tests.core.big_history import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import PostgresDatabases

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(900)]

FEW, MANY = 10_000, 1_000_000
GROWTH_MIB = 16

# In a process of its own. VmHWM is the peak since exec; ru_maxrss would be that of pytest, which made the process.
PROBE = r"""
import json, pathlib, re, sys, time
from interlock.core import open_database
from interlock.core.verify import Verification, verify
verification = Verification()
database = open_database(sys.argv[1])
began, used = time.monotonic(), time.process_time()
findings = sum(1 for _ in verify(database, verification))
print(json.dumps({
    "runs": verification.runs, "rows": verification.rows, "findings": findings,
    "seconds": round(time.monotonic() - began, 2), "cpu_seconds": round(time.process_time() - used, 2),
    "peak_mib": int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024,
}))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Makes the URL of a migrated database without rows, by name."""
    if request.param == "sqlite":
        template, folder = request.getfixturevalue("sqlite_template"), request.getfixturevalue("tmp_path")
        yield lambda name: f"sqlite:///{shutil.copy(template, folder / name)}"
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    empty: str = request.getfixturevalue("postgres_template")
    with ExitStack() as made:
        yield lambda _: made.enter_context(databases.fresh(empty))


def _measured(url: str, rows: int) -> dict[str, Any]:
    database = open_database(url)
    filled = fill(database, rows)
    database.dispose()
    done = subprocess.run([sys.executable, "-c", PROBE, url], capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    print(url.partition(":")[0], measured)  # noqa: T201 - the figures of docs/verify.md
    assert (measured["rows"], measured["findings"]) == (filled, 0)
    return measured


def test_memory_does_not_grow_with_the_history(migrated: Callable[[str], str]) -> None:
    few, many = _measured(migrated("few"), FEW), _measured(migrated("many"), MANY)
    assert many["rows"] >= MANY
    assert many["peak_mib"] - few["peak_mib"] < GROWTH_MIB
