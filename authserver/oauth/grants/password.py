"""Resource owner password credentials (RFC 6749 §4.3): fenced in as docs/standards.md says, opt-in for each client."""

from starlette.responses import Response

from authserver.oauth import audience, errors, scopes
from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.issue import token_response
from authserver.services import Services


async def password(services: Services, asked: Asked) -> Response | Refusal:
    """Authenticate the user, begin a session, answer with its tokens.

    Wrong password, nobody by that name, disabled: one and the same refusal in the same time. Raises TooManyAttempts
    before anything is hashed, Busy when too many hashes wait.
    """
    client, form = asked.client, asked.form
    for parameter in ("username", "password"):
        if parameter not in form:
            return errors.missing(parameter)
    scope = scopes.granted(form.get("scope"), client.scopes)
    if scope is None:
        return errors.INVALID_SCOPE
    resources = audience.granted(form.get("resource"), client.audience)
    if isinstance(resources, Refusal):
        return resources

    verified = await services.authentication.verify_password(
        identifier=form["username"], password=form["password"], ip=asked.ip, client_id=client.id
    )
    if verified is None:
        return errors.INVALID_GRANT_PASSWORD

    await services.authentication.settle(verified)
    sign_in = await services.sessions.start(
        user_id=verified.user_id,
        username=verified.username,
        generation=verified.generation,
        client_id=client.id,
        grant="password",
        scope=scope,
        refreshable="refresh_token" in client.grants,
        ip=asked.ip,
        user_agent=asked.user_agent,
        audience=resources if "resource" in form else None,
    )
    if sign_in is None:
        if not await services.clients.is_active(client.id):
            return errors.INVALID_CLIENT.because("the client was switched off while the password was verified")
        return errors.INVALID_GRANT_PASSWORD.because("the account changed while the password was verified")
    return token_response(services, client, sign_in, scope, audience=resources)
