"""GET and POST /authorize: from a request to its answer (RFC 6749 §4.1, OpenID Connect Core §3.1.2).

Nothing is remembered of a request but the code that it ends in: on its way to the sign-in and consent pages it travels
in the address, with a ticket that proves that we have seen it (docs/decisions/0010-the-request-travels.md).
"""

from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from authserver import clock, services, signed_in
from authserver.clients.models import Client
from authserver.errors import ShownToPerson
from authserver.oauth.authorization import hint, parameters, pushed, redirect_uri, refusals, request_object, ticket
from authserver.oauth.authorization import request as requests
from authserver.oauth.authorization.parameters import Parameters
from authserver.oauth.authorization.refusals import invalid_request
from authserver.oauth.authorization.request import CONSENT, LOGIN, NONE, SELECT_ACCOUNT, AuthorizationRequest
from authserver.oauth.authorization.response import WayBack, see_other
from authserver.oauth.errors import Refusal
from authserver.oauth.request import read_form_bytes
from authserver.observability.requests import note
from authserver.services import Services
from authserver.sessions.browser import SignedIn


async def authorize(request: Request) -> Response:
    """Answer an authorization request, or send the browser to where a person does what is missing for that.

    ShownToPerson as long as there is no client and redirect URI that an error could go to.
    """
    house = services.of(request)
    if request.method == "POST":  # from another site, so without the cookie of the sign-in (SameSite=Lax)
        form = parameters.read(await read_form_bytes(request))
        return see_other(f"{house.settings.base_path}/authorize?{form.query()}")

    sent = parameters.read(request.scope["query_string"])
    client = await _client(house, sent)
    first_seen = ticket.read(house.settings, sent)
    meant = await _meant(house, client, sent, has_ticket=first_seen is not None)
    back = _way_back(house, client, sent.values if isinstance(meant, Refusal) else meant)
    asked = meant if isinstance(meant, Refusal) else requests.checked(client, meant)
    if isinstance(asked, Refusal):
        return back.refusal(asked)
    subjects = await _subjects(house, asked)
    if isinstance(subjects, Refusal):
        return back.refusal(subjects)
    if first_seen is not None and sent.refused:
        return back.refusal(refusals.ACCESS_DENIED.because(f"refused: {sent.refused}"))

    who = await signed_in.who(request, client.id)
    if who is None or _must_prove_anew(who, asked, subjects, first_seen):
        if NONE in asked.prompts:
            return back.refusal(refusals.LOGIN_REQUIRED)
        return see_other(_login_page(house, client, sent, asked, who))
    if subjects is not None and str(who.user_id) not in subjects:
        return back.refusal(refusals.LOGIN_REQUIRED.because("signed in as somebody else than the request asks for"))

    if _must_consent(who, client, asked, first_seen):
        if NONE in asked.prompts:
            return back.refusal(refusals.CONSENT_REQUIRED)
        return see_other(_consent_page(house, client, sent, asked))

    return back.code(await _code(house, who, asked, sent.values.get("request_uri")))
