"""The denylist's copy in Redis can be believed: the entries get numbers, the copy's state a row.

Revision: 0002, after: 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    remake_entries(sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True))
    state = op.create_table(
        "denylist_state",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("is_trusted", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.String(100), nullable=False),
        sa.Column("marker", sa.String(200), nullable=False),
    )
    op.bulk_insert(state, [{"id": 1, "is_trusted": False, "epoch": 0, "run": "", "marker": ""}])


def downgrade() -> None:
    op.drop_table("denylist_state")
    remake_entries()


def remake_entries(*number: sa.Column[int]) -> None:
    """Make the table anew, with a number for its key or with the entry; a new key is no change that SQLite can make."""
    op.execute("CREATE TABLE denylist_entries_before AS SELECT entry, forget_at FROM denylist_entries")
    op.drop_table("denylist_entries")
    op.create_table(
        "denylist_entries",
        *number,
        sa.Column("entry", sa.String(80), primary_key=not number, unique=bool(number), nullable=False),
        sa.Column("forget_at", MOMENT, nullable=False, index=True),
    )
    op.execute("INSERT INTO denylist_entries (entry, forget_at) SELECT entry, forget_at FROM denylist_entries_before")
    op.drop_table("denylist_entries_before")
