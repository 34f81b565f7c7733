"""The message on which a process came to a step from the one before it (run-through).

Written out by hand, and independent of the models, as every revision is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CARRIED = sa.text("carrier_id IS NOT NULL")


def upgrade() -> None:
    """Add the column, and an index of the few rows that have a value in it at a time."""
    op.add_column("workflow_steps", sa.Column("carrier_id", sa.String(250)))
    op.create_index(
        "ix_workflow_steps_carrier_id",
        "workflow_steps",
        ["carrier_id"],
        postgresql_where=_CARRIED,
        sqlite_where=_CARRIED,
    )


def downgrade() -> None:
    """Drop both; steps that are carried at this moment are told apart no more, and their leases decide."""
    op.drop_index("ix_workflow_steps_carrier_id", "workflow_steps")
    op.drop_column("workflow_steps", "carrier_id")
