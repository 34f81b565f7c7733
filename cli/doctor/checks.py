"""Every check, in the order in which they are reported and documented: from what must be there to how it is set."""

from __future__ import annotations

# Importing a module registers its checks.
# isort: off
from . import checks_database  # noqa: F401
from . import checks_broker  # noqa: F401
from . import checks_workers  # noqa: F401
from . import checks_settings  # noqa: F401
from . import checks_celery  # noqa: F401

# isort: on
from .registry import CHECKS, Check

__all__ = ["CHECKS", "Check"]
