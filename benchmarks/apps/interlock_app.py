"""Interlock's side: a plain app with `install`, no result backend, and bodies that do nothing."""

from __future__ import annotations

import os
import time

from celery import Celery

from interlock import install

from .settings import WORKER_SETTINGS

app = Celery("benchmark_steps", broker=os.environ["INTERLOCK_BROKER_URL"], set_as_current=True)
app.conf.update(WORKER_SETTINGS, task_ignore_result=True)
install(app)


@app.task(name="noop")
def noop() -> None:
    """Do nothing."""


@app.task(name="stamp")
def stamp() -> float:
    """Say when the body began."""
    return time.time()
