"""A stand-in for the next release: a copy of the package with one more revision of the tables, which its processes require.

Nothing else differs, so what its workers do is known; what is tried is that two releases and two shapes of the tables get along.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from interlock.core.database.revision import EXPECTED_REVISION
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NEXT_REVISION", "NextVersion"]

NEXT_REVISION: Final = f"{int(EXPECTED_REVISION) + 1:04d}"

# Steps before runs, the other way round than whoever moves a step locks them: so the two do meet.
_MIGRATION: Final = f'''"""What the next release may add: a column with a default, one without, an index."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT_REVISION}"
down_revision = "{EXPECTED_REVISION}"


def upgrade():
    op.add_column("workflow_steps", sa.Column("cost", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_index("ix_workflow_steps_claimed_by", "workflow_steps", ["claimed_by"])
    op.add_column("state_history", sa.Column("origin", sa.String(40)))
    op.add_column("workflow_runs", sa.Column("owner", sa.String(200)))
'''


class NextVersion:
    """The copy, and how to run it."""

    def __init__(self, folder: Path) -> None:
        """Copy the package into a folder, links followed."""
        self._folder = folder
        package = folder / "interlock"
        shutil.copytree(ROOT / "src" / "interlock", package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / "migrations" / "versions" / f"{NEXT_REVISION}_next.py").write_text(_MIGRATION, "utf-8")
        revision = package / "core" / "database" / "revision.py"
        text, changed = re.subn(
            r'^EXPECTED_REVISION = "\d{4}"$',
            f'EXPECTED_REVISION = "{NEXT_REVISION}"',
            revision.read_text("utf-8"),
            flags=re.MULTILINE,
        )
        assert changed == 1
        revision.write_text(text, "utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process import it instead of the release under test."""
        return {"PYTHONPATH": os.pathsep.join([str(self._folder), str(ROOT)])}

    def interlock(self, *words: str, database_url: str) -> str:
        """Run a command of its; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "interlock.cli.main", *words],
            check=False,
            cwd=self._folder,
            env={**os.environ, **self.environment, "INTERLOCK_DATABASE_URL": database_url},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
