"""Refreshing an access token (RFC 6749 §6) with rotation and reuse detection (RFC 9700 §4.14.2)."""

from starlette.responses import Response

from authserver.oauth import errors, scopes
from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.issue import token_response
from authserver.services import Services


async def refresh_token(services: Services, asked: Asked) -> Response | Refusal:
    """Trade the refresh token for its successor (sessions.lifecycle.rotate has the rule) and a new access token.

    A narrower scope is for the new access token only; the session keeps its own.
    """
    client, form = asked.client, asked.form
    if "refresh_token" not in form:
        return errors.missing("refresh_token")

    if "scope" in form:
        # A session never changes its scope, so this may be looked at first: what is asked for wrongly uses nothing up.
        found = await services.sessions.find(form["refresh_token"])
        if (
            found is not None
            and found.is_good
            and found.session.client_id == client.id
            and scopes.granted(form["scope"], found.session.scope.split(" ")) is None
        ):
            return errors.INVALID_SCOPE
    sign_in = await services.sessions.rotate(form["refresh_token"], client.id)
    if sign_in is None:
        return errors.INVALID_GRANT_REFRESH
    scope = scopes.granted(form.get("scope"), sign_in.scope.split(" "))
    if scope is None:  # of a retry, which writes nothing
        return errors.INVALID_SCOPE
    return await token_response(services, client, sign_in, scope)
