"""price and longest per credential; the newest answer that the schedule's row has taken in

Rule: expand, backfill (batched, in a command of its own), contract; each in a release of its own. An index on a large table is made
CONCURRENTLY inside `op.get_context().autocommit_block()`.

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All nullable and without a default: no table is rewritten, and no backfill is needed.
    op.add_column("credentials", sa.Column("poll_price", sa.REAL(), nullable=True))
    op.add_column("credentials", sa.Column("poll_longest", sa.REAL(), nullable=True))
    op.add_column("polls", sa.Column("answered", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("polls", "answered")
    op.drop_column("credentials", "poll_longest")
    op.drop_column("credentials", "poll_price")
