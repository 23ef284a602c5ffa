"""Claims of ID tokens: those that were asked for by name are in the ID token of a refresh too.

Revision: 0008, after: 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_sessions", sa.Column("id_token_claims", sa.JSON()))


def downgrade() -> None:
    with op.batch_alter_table("user_sessions") as table:
        table.drop_column("id_token_claims")
