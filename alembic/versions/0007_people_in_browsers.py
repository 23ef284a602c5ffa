"""People in browsers: sign-ins of browsers, consents, authorization codes, pushed requests, notices of logout.

Revision: 0007, after: 0006.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)
CLIENT_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("require_pkce", sa.Boolean(), nullable=False, server_default=sa.true()),
    sa.Column("require_pushed_requests", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("require_signed_requests", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("is_trusted", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("default_max_age", sa.Integer()),
    sa.Column("id_token_alg", sa.String(10), nullable=False, server_default="RS256"),
    sa.Column("userinfo_alg", sa.String(10)),
    sa.Column("post_logout_redirect_uris", sa.JSON()),
    sa.Column("backchannel_logout_uri", sa.String(2000)),
    sa.Column("uri", sa.String(2000)),
    sa.Column("policy_uri", sa.String(2000)),
    sa.Column("tos_uri", sa.String(2000)),
    sa.Column("registration_token_hash", sa.String(64)),
)
SESSION_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("browser_session_id", sa.Uuid()),
    sa.Column("audience", sa.JSON()),
    sa.Column("userinfo_claims", sa.JSON()),
    sa.Column("authenticated_at", WHEN),
    sa.Column("amr", sa.String(64)),
)
GROWS_WITH_TRAFFIC = ("browser_sessions", "authorization_codes", "pushed_requests", "logout_notices")


def upgrade() -> None:
    for column in CLIENT_COLUMNS:
        op.add_column("clients", column)
    for column in SESSION_COLUMNS:
        op.add_column("user_sessions", column)
    op.create_index(op.f("ix_user_sessions_browser_session_id"), "user_sessions", ["browser_session_id"])
    op.create_table(
        "browser_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("cookie_hash", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("amr", sa.String(64), nullable=False),
        sa.Column("authenticated_at", WHEN, nullable=False),
        sa.Column("ip", sa.String(45)),
        sa.Column("user_agent", sa.String(255)),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_browser_sessions")),
        sa.UniqueConstraint("cookie_hash", name=op.f("uq_browser_sessions_cookie_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_browser_sessions_user_id_users"), ondelete="CASCADE"
        ),
    )
    op.create_index(op.f("ix_browser_sessions_user_id"), "browser_sessions", ["user_id"])
    op.create_index(op.f("ix_browser_sessions_expires_at"), "browser_sessions", ["expires_at"])
    op.create_table(
        "consents",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("given_at", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "client_id", name=op.f("pk_consents")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_consents_user_id_users"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_consents_client_id_clients"), ondelete="CASCADE"
        ),
    )
    op.create_index(op.f("ix_consents_client_id"), "consents", ["client_id"])
    op.create_table(
        "authorization_codes",
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("browser_session_id", sa.Uuid(), nullable=False),
        sa.Column("redirect_uri", sa.String(2000)),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("audience", sa.JSON()),
        sa.Column("id_token_claims", sa.JSON()),
        sa.Column("userinfo_claims", sa.JSON()),
        sa.Column("code_challenge", sa.String(128)),
        sa.Column("nonce", sa.String(1000)),
        sa.Column("authenticated_at", WHEN, nullable=False),
        sa.Column("amr", sa.String(64), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_authorization_codes")),
    )
    op.create_index(op.f("ix_authorization_codes_expires_at"), "authorization_codes", ["expires_at"])
    op.create_table(
        "pushed_requests",
        sa.Column("handle_hash", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("handle_hash", name=op.f("pk_pushed_requests")),
    )
    op.create_index(op.f("ix_pushed_requests_expires_at"), "pushed_requests", ["expires_at"])
    op.create_table(
        "logout_notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logout_notices")),
    )
    op.create_index(op.f("ix_logout_notices_next_try_at"), "logout_notices", ["next_try_at"])
    if op.get_context().dialect.name == "postgresql":
        for table in GROWS_WITH_TRAFFIC:
            op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.05)")


def downgrade() -> None:
    for table in (*GROWS_WITH_TRAFFIC, "consents"):
        op.drop_table(table)
    op.drop_index(op.f("ix_user_sessions_browser_session_id"), "user_sessions")
    for name, columns in (("user_sessions", SESSION_COLUMNS), ("clients", CLIENT_COLUMNS)):
        with op.batch_alter_table(name) as changed:
            for column in columns:
                changed.drop_column(column.name)
