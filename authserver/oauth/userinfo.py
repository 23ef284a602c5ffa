"""GET and POST /userinfo (OpenID Connect Core §5.3): who signed in, as far as the scopes tell."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import bearer
from authserver.oauth.errors import json_response
from authserver.users.models import User


async def userinfo(request: Request) -> Response:
    """Return the claims about the bearer's user that the token's scopes open."""
    who = await bearer.authenticate(request, scope="openid")
    return json_response(claims(who.user, who.claims.scopes))


def claims(user: User, scopes: frozenset[str]) -> dict[str, object]:
    """Return the claims of OpenID Connect Core §5.4 for these scopes."""
    about: dict[str, object] = {"sub": str(user.id)}
    if "profile" in scopes:
        about["preferred_username"] = user.username
        about["updated_at"] = int(user.updated_at.timestamp())
    if "email" in scopes:
        about["email"] = user.email
        about["email_verified"] = False  # nothing verifies addresses yet
    return about
