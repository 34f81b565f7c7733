"""What runs inside `celery worker`: MAIN's supervisor, the pool's children, and the engine process.

`celery -A interlock.worker worker` starts a ready app (`application`), which is made only when it is asked for.
"""

from typing import TYPE_CHECKING

from interlock.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from .application import app as app
    from .application import celery as celery
    from .installation import install
else:
    __getattr__, __dir__ = lazy_names(__name__, {".application": ["app", "celery"], ".installation": ["install"]})

__all__ = ["install"]
