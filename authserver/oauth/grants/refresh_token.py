"""Refreshing an access token (RFC 6749 §6) with rotation and reuse detection (RFC 9700 §4.14.2)."""

from starlette.responses import Response

from authserver.clients.models import Client
from authserver.oauth import audience, errors, scopes
from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.issue import asked_for, token_response
from authserver.oauth.request import Form
from authserver.services import Services
from authserver.sessions.lifecycle import SignIn
from authserver.sessions.models import UserSession


async def refresh_token(services: Services, asked: Asked) -> Response | Refusal:
    """Trade the refresh token for its successor (sessions.lifecycle.rotate has the rule) and a new access token.

    A narrower scope or audience is for the new access token only; the session keeps its own.
    """
    client, form = asked.client, asked.form
    if "refresh_token" not in form:
        return errors.missing("refresh_token")

    if "scope" in form or "resource" in form:
        # A session changes neither, so they may be looked at first: what is asked for wrongly uses nothing up.
        found = await services.sessions.find(form["refresh_token"])
        if found is not None and found.is_good and found.session.client_id == client.id:
            narrowed = _narrowed(client, form, found.session)
            if isinstance(narrowed, Refusal):
                return narrowed
    sign_in = await services.sessions.rotate(form["refresh_token"], client.id)
    if sign_in is None:
        return errors.INVALID_GRANT_REFRESH
    narrowed = _narrowed(client, form, sign_in)
    if isinstance(narrowed, Refusal):  # of a retry, which writes nothing
        return narrowed
    scope, resources = narrowed
    claims = await asked_for(services, sign_in)  # if that fails, the client's retry gets the same successor
    return token_response(services, client, sign_in, scope, audience=resources, id_token_claims=claims)


def _narrowed(client: Client, form: Form, session: UserSession | SignIn) -> tuple[str, list[str]] | Refusal:
    """Return the scope and the audience of the new access token: the session's, or as much of it as is asked for."""
    scope = scopes.granted(form.get("scope"), session.scope.split(" "))
    if scope is None:
        return errors.INVALID_SCOPE
    resources = audience.granted(form.get("resource"), audience.of(client, session.audience))
    return resources if isinstance(resources, Refusal) else (scope, resources)
