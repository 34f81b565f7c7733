"""Between core and Celery, the broker and Redis: task signals become reports, commits become messages and events."""
