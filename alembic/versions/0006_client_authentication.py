"""Clients prove themselves in more ways: by keys, by signing with their secret, by two secrets for a while.

Revision: 0006, after: 0004.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "auth_method": sa.String(20),
    "encrypted_secret": sa.LargeBinary(),
    "old_secret_hash": sa.String(64),
    "old_encrypted_secret": sa.LargeBinary(),
    "old_secret_until": sa.DateTime(timezone=True),
    "jwks": sa.JSON(),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("clients", sa.Column(name, kind))
    op.execute("UPDATE clients SET auth_method = 'none' WHERE secret_hash IS NULL")
    op.create_table(
        "used_assertions",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_used_assertions")),
    )
    op.create_index(op.f("ix_used_assertions_expires_at"), "used_assertions", ["expires_at"])
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE used_assertions SET (autovacuum_vacuum_scale_factor = 0.05)")


def downgrade() -> None:
    op.drop_table("used_assertions")
    # Without a hash a client was public; one with keys must not become that. No secret has this hash.
    op.execute("UPDATE clients SET secret_hash = 'none' WHERE secret_hash IS NULL AND auth_method <> 'none'")
    with op.batch_alter_table("clients") as table:
        for name in COLUMNS:
            table.drop_column(name)
