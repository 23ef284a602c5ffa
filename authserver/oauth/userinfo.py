"""GET and POST /userinfo (OpenID Connect Core §5.3): who signed in, as far as scopes and claims asked for tell."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import bearer, services
from authserver.keys.signing import sign
from authserver.oauth import claims
from authserver.oauth.errors import NOT_A_FORM, Refusal, json_response
from authserver.oauth.request import read_form, read_head
from authserver.tokens.id_token import known


async def userinfo(request: Request) -> Response:
    """Return the claims about the bearer's user: as JSON, or signed for a client that has registered for that."""
    house = services.of(request)
    in_form = await _token_in_form(request) if request.method == "POST" else None
    who = await bearer.authenticate(request, scope="openid", in_form=in_form)
    about = {"sub": who.claims.subject} | claims.about(who.user, who.claims.scopes, who.claims.userinfo_claims)
    client = await house.clients.find_active(who.claims.client_id, briefly_cached=True)
    if client is None:
        raise await bearer.of_nobody(request, who.claims)
    if client.userinfo_alg is None:
        return json_response(about)
    key = house.keyring.signing_key(known(client.userinfo_alg))
    signed = sign(key, "JWT", {"iss": house.settings.issuer, "aud": client.id, **about})  # §5.3.2
    return Response(signed, media_type="application/jwt", headers={"Cache-Control": "no-store"})


async def _token_in_form(request: Request) -> str | None:
    """Return the access token of a form (RFC 6750 §2.2), if there is a form and it has one."""
    form = await read_form(request, read_head(request.scope["headers"]))
    if form is NOT_A_FORM:
        return None  # whatever it is, nobody looks into it
    if isinstance(form, Refusal):
        raise bearer.malformed(form.description)
    return form.get("access_token")
