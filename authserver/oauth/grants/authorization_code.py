"""The authorization code grant (RFC 6749 §4.1.3) with proof keys (RFC 7636)."""

import hashlib
import re

from starlette.responses import Response

from authserver import opaque
from authserver.oauth import audience, errors
from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.issue import asked_for, token_response
from authserver.services import Services

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


async def authorization_code(services: Services, asked: Asked) -> Response | Refusal:
    """Trade a code for tokens (sessions.authorization_code.redeem has the rule for a second time).

    Whoever lacks what belongs to the code neither gets anything for it nor ends what it was traded for.
    """
    client, form = asked.client, asked.form
    if "code" not in form:
        return errors.missing("code")
    code = await services.authorization_codes.find(form["code"])
    if code is None:
        return errors.INVALID_GRANT_CODE.because("unknown code")
    if code.client_id != client.id:
        return errors.INVALID_GRANT_CODE.because("the code is another client's")
    if form.get("redirect_uri") != code.redirect_uri:
        return errors.INVALID_GRANT_CODE.because("the redirect_uri is not that of the request")
    if not _proves(form.get("code_verifier"), code.code_challenge):
        return errors.INVALID_GRANT_CODE.because("the code_verifier does not fit the code_challenge")
    resources = audience.granted(form.get("resource"), audience.of(client, code.audience))
    if isinstance(resources, Refusal):
        return resources

    claims = await asked_for(services, code)  # as long as the code is not used up
    sign_in = await services.authorization_codes.redeem(code, client)
    if sign_in is None:
        return errors.INVALID_GRANT_CODE.because("used, expired, or what it stood on is gone")
    return token_response(
        services, client, sign_in, code.scope,
        audience=resources, nonce=code.nonce, id_token_claims=claims,
    )  # fmt: skip


def _proves(verifier: str | None, challenge: str | None) -> bool:
    """Tell whether who redeems a code has made its request (RFC 7636 §4.6); a verifier without challenge is foul."""
    if verifier is None or challenge is None:
        return verifier is challenge
    digest = opaque.b64encode(hashlib.sha256(verifier.encode()).digest())
    return _VERIFIER.fullmatch(verifier) is not None and opaque.same(digest, challenge)
