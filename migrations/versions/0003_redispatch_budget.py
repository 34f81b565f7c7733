"""A table for the allowance of messages that are sent again, which was a row of control_commands.

Written out by hand, and independent of the models, as every revision is. The row of the release before is left alone: workers of
that release go on using it, and it is deleted like an old command when they are gone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; its only row is made by the first sweeper that needs it."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    clock = "clock_timestamp()" if is_postgresql else "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
    op.create_table(
        "redispatch_budget",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("paid_until", sa.DateTime(timezone=True), server_default=sa.text(clock), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_redispatch_budget"),
    )


def downgrade() -> None:
    """Drop it: sweepers of the release before begin with a full allowance."""
    op.drop_table("redispatch_budget")
