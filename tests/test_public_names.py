"""What users have written keeps working: no public name goes, and a new one is promised on purpose."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests import public_names

STORED = public_names.stored()


@pytest.mark.parametrize("kind", STORED)
def test_every_promised_name_is_there_and_a_new_one_is_promised(kind: str) -> None:
    """`python -m tests.public_names` promises what was added; a name leaves the file with a major version alone."""
    names = public_names.found()[kind]
    gone, new = set(STORED[kind]) - set(names), set(names) - set(STORED[kind])
    assert not gone, f"{kind}: {', '.join(sorted(gone))}: users would miss it"
    assert not new, (
        f"{kind}: {', '.join(sorted(new))}: promise it by `python -m tests.public_names`, or keep it private"
    )


@pytest.mark.parametrize("module", public_names.MODULES)
def test_every_promised_name_can_be_imported(module: str) -> None:
    """Some are loaded when they are first used."""
    for name in STORED[module]:
        assert hasattr(import_module(module), name)
        assert name in dir(import_module(module))
