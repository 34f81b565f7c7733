"""What runs in Celery's main process: it supervises the engine and passes interrupts to children."""
