"""Alembic migrations, shipped with the package and callable without the command line.

Developers run Alembic itself, which finds its configuration in pyproject.toml:
`alembic -x url=sqlite:///dev.db revision --autogenerate --rev-id 0004 -m "what changes"`. A revision's id is four
digits, one more than the last; `interlock.core.database.revision` names the head, and says what a migration must leave usable.
"""

from typing import TYPE_CHECKING

from interlock.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from .commands import check, current, downgrade, upgrade
    from .comparison import TablesDiffer
else:
    __getattr__, __dir__ = lazy_names(
        __name__, {".commands": ["check", "current", "downgrade", "upgrade"], ".comparison": ["TablesDiffer"]}
    )

__all__ = ["TablesDiffer", "check", "current", "downgrade", "upgrade"]
