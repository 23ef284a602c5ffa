"""Clients that act for themselves: what their own tokens carry as `sid`, so that they can be ended.

Revision: 0004, after: 0003.
"""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clients", sa.Column("own_session_id", sa.Uuid()))
    clients = sa.table("clients", sa.column("id", sa.String()), sa.column("own_session_id", sa.Uuid()))
    connection = op.get_bind()
    for client_id in connection.scalars(sa.select(clients.c.id)).all():
        connection.execute(clients.update().where(clients.c.id == client_id).values(own_session_id=uuid4()))
    with op.batch_alter_table("clients") as table:
        table.alter_column("own_session_id", nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("clients") as table:
        table.drop_column("own_session_id")
