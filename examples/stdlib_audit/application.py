"""The audit's Celery app: `interlock dev -A examples.stdlib_audit.application:app`."""

from __future__ import annotations

from celery import Celery

from interlock import install

app = Celery("stdlib_audit", include=["examples.stdlib_audit.tasks"])
install(app)
