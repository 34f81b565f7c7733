"""Alembic migrations, shipped with the package and callable without the command line."""
