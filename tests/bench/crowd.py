"""A database as it is after years: people, sessions, revocations; written by PostgreSQL itself, for speed."""

import asyncpg

_CLIENT = """
INSERT INTO clients (id, name, grants, scopes, audience, redirect_uris, may_introspect, is_active, own_session_id,
                     created_at, updated_at)
VALUES ('crowd', 'The crowd', '[]', '["openid"]', '[]', '[]', false, true, gen_random_uuid(), now(), now())
"""
_USERS = """
INSERT INTO users (id, email, email_key, username, username_key, hashed_password, is_active, is_superuser, generation,
                   created_at, updated_at)
SELECT gen_random_uuid(), name || '@example.org', name || '@example.org', name, name, repeat('x', 97), true, false, 0,
       now(), now()
FROM (SELECT 'crowd-' || number AS name FROM generate_series(1, $1::int) AS number) AS names
"""
_SESSIONS = """
INSERT INTO user_sessions (id, user_id, client_id, "grant", scope, token_jti, tokens_expire_at, refresh_hash,
                           generation, ip, user_agent, created_at, last_used_at, expires_at, max_expires_at)
SELECT gen_random_uuid(), id, 'crowd', 'password', 'openid profile email', gen_random_uuid(),
       now() + interval '10 minutes', md5(username) || md5(email), 0, '192.0.2.1', 'crowd', now(), now(),
       now() + interval '14 days', now() + interval '90 days'
FROM users WHERE username LIKE 'crowd-%'
"""
_REVOCATIONS = """
INSERT INTO denylist_entries (entry, forget_at)
SELECT 'j:' || gen_random_uuid(), now() + interval '1 hour' FROM generate_series(1, $1::int)
"""
_OVER = """
UPDATE user_sessions SET expires_at = now() - interval '1 day', tokens_expire_at = now() - interval '1 day'
WHERE client_id = 'crowd'
"""


async def fill(url: str, people: int, revocations: int) -> None:
    """Add so many users with a session each, and so many revoked tokens."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_CLIENT)
        await connection.execute(_USERS, people)
        await connection.execute(_SESSIONS)
        await connection.execute(_REVOCATIONS, revocations)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def count_sessions(url: str) -> int:
    """Return how many sessions there are."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM user_sessions"))
    finally:
        await connection.close()


async def let_sessions_run_out(url: str) -> None:
    """Make all of the crowd's sessions old enough to be pruned."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_OVER)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
