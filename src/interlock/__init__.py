"""Durable workflows for Celery: a state machine driven by its signals."""
