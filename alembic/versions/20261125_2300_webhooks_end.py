"""When deliveries ended, and what receivers asked for

Only new columns that may be empty: no table is read or rewritten.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("receivers", sa.Column("asked_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("receivers", sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("receivers", sa.Column("replay_snapshot", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("receivers", "replay_snapshot")
    op.drop_column("receivers", "given_up_at")
    op.drop_column("receivers", "asked_until")
    op.drop_column("deliveries", "ended_at")
