"""The app, and when what is due: `celery -A examples.beat_schedule.application beat`."""

from __future__ import annotations

import os

from celery import Celery
from celery.schedules import crontab

from interlock import install

# Every few seconds, to see it work; at six in the morning otherwise.
EVERY_S = os.environ.get("REPORT_EVERY_S")

app = install(Celery("beat_schedule", include=["examples.beat_schedule.tasks"]))
app.conf.beat_schedule = {
    "daily-report": {
        "task": "examples.beat_schedule.tasks.enqueue_report",
        "schedule": float(EVERY_S) if EVERY_S else crontab(hour=6, minute=0),
    },
}
