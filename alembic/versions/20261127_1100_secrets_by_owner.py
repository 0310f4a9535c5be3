"""secrets by owner

Expand only: a claim looks up the signing secrets of each delivery, and read all that there are for it.

Revision: 0005, after 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("signing_secrets_owner", "signing_secrets", ["project_id", "endpoint_id"])


def downgrade() -> None:
    op.drop_index("signing_secrets_owner", table_name="signing_secrets")
