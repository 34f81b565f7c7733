"""The command line: interlock, and the same verbs under celery workflow."""
