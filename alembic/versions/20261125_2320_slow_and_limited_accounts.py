"""slow and limited accounts

Expand only: which batches a worker has taken, and how often in a row an account was rate limited.

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("credentials", sa.Column("limited", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("flights", sa.Column("taken", sa.Boolean(), server_default="false", nullable=False))


def downgrade() -> None:
    op.drop_column("flights", "taken")
    op.drop_column("credentials", "limited")
