"""Celery's task signals in: receivers report to core what a step's body does."""
