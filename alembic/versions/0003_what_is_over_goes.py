"""What is over goes by itself: an index for sessions that were ended early, and VACUUM before much has gathered.

Revision: 0003, after: 0002. Neither is needed for right answers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEX = "ix_user_sessions_tokens_expire_at"
BUSY_TABLES = ("user_sessions", "denylist_entries", "account_attempts", "audit_events")
VACUUM = "autovacuum_vacuum_scale_factor"


def upgrade() -> None:
    ended = sa.text("revoked_at IS NOT NULL")
    op.create_index(INDEX, "user_sessions", ["tokens_expire_at"], sqlite_where=ended, postgresql_where=ended)
    alter_busy_tables(f"SET ({VACUUM} = 0.05)")  # the default is a fifth of the table


def downgrade() -> None:
    alter_busy_tables(f"RESET ({VACUUM})")
    op.drop_index(INDEX, "user_sessions")


def alter_busy_tables(change: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        for table in BUSY_TABLES:
            op.execute(f"ALTER TABLE {table} {change}")
