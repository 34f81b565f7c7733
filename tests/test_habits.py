"""What developers lean on says the same everywhere: hooks and `make lint`, dependencies and their versions."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import Final

import pytest
import yaml

from tests.servers import ROOT

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def _normal(requirement: str) -> str:
    """The name of a requirement as package indexes compare it."""
    found = _NAME.match(requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@pytest.mark.integration
def test_the_hooks_before_a_commit_are_the_commands_of_make_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [repository] = config["repos"]
    assert repository["repo"] == "local", "nothing is downloaded"
    hooks = {hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]}
    command = ["make", "--dry-run", "--always-make", "lint"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    linted = re.findall(r"^(\.venv/bin/(?:ruff|mypy|lint-imports)\b.*?)(?: \.)?$", printed, re.MULTILINE)
    assert hooks == set(linted)


def test_every_dependency_has_its_version_in_the_constraints() -> None:
    """`make constraints` writes them; a dependency that is new in pyproject.toml has none before that."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], *extras.values(), *project["dependency-groups"].values()]
    named = {_normal(entry) for entries in lists for entry in entries if isinstance(entry, str)}
    lines = (ROOT / "constraints" / "dev.txt").read_text(encoding="utf-8").splitlines()
    held = {_normal(line) for line in lines if not line.startswith("#")}
    assert all("==" in line for line in lines if not line.startswith("#")), "a version, and no address"
    assert named - held <= {"setuptools"}, "run `make constraints`"
