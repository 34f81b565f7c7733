"""Claims and reports of attempts, from Celery's task signals; the step as its body sees it; sessions of run-through."""
