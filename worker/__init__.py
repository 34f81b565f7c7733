"""What runs inside `celery worker`: the veto and its retries, the supervisor in MAIN, and the engine process.

`celery -A interlock.worker worker` starts a ready app (`application`), which is made only when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .installation import install

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["install"]


def __getattr__(name: str) -> Celery:
    if name in ("app", "celery"):
        from .application import app  # noqa: PLC0415 - importing it would make an app for everyone who imports `install`

        return app
    raise AttributeError(name)
