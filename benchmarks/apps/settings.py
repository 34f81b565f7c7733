"""The one worker configuration that every Celery app under measurement has."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["WORKER_SETTINGS"]

WORKER_SETTINGS: Final[dict[str, Any]] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "broker_connection_retry_on_startup": True,
}
