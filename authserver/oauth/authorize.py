"""GET and POST /authorize: from a request to its answer (RFC 6749 §4.1, OpenID Connect Core §3.1.2).

Nothing is remembered of a request but the code that it ends in: on its way to the sign-in and consent pages it travels
in the address, with a ticket that proves that we have seen it (docs/decisions/0010-the-request-travels.md).
"""

from dataclasses import replace
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from authserver import clock, services, signed_in
from authserver.clients.models import Client
from authserver.errors import ShownToPerson
from authserver.oauth.authorization import arrival, parameters, pushed, redirect_uri, refusals, ticket
from authserver.oauth.authorization.parameters import CHOSEN, TICKET, Parameters
from authserver.oauth.authorization.request import (
    CONSENT,
    LOGIN,
    NONE,
    SELECT_ACCOUNT,
    AuthorizationRequest,
    checked,
)
from authserver.oauth.authorization.response import WayBack, see_other
from authserver.oauth.errors import Refusal
from authserver.oauth.request import read_form_bytes, read_head
from authserver.observability import metrics, requests
from authserver.services import Services
from authserver.sessions.browser import SignedIn


async def authorize(request: Request) -> Response:
    """Answer an authorization request, or send the browser to where a person does what is missing for that.

    ShownToPerson as long as there is no client and redirect URI that an error could go to.
    """
    house = services.of(request)
    if request.method == "POST":
        return await _by_get(request, house)

    sent = parameters.read(request.scope["query_string"])
    first_seen = ticket.read(house.settings, sent)
    client = await _client(house, sent)
    meant = await arrival.meant(house, client, sent, has_ticket=first_seen is not None)
    back = _way_back(house, client, sent.values if isinstance(meant, Refusal) else meant)
    asked = meant if isinstance(meant, Refusal) else checked(client, meant)
    if isinstance(asked, Refusal):
        return back.refusal(asked)
    subjects = await _subjects(house, asked)
    if isinstance(subjects, Refusal):
        return back.refusal(subjects)
    if first_seen is not None and sent.refused is not None:
        return back.refusal(refusals.ACCESS_DENIED.because(f"refused: {sent.refused[:20]}"))

    who = await signed_in.who(request, client.id)
    asked = _still_asked(asked, sent, first_seen)
    if who is None or _must_prove_anew(who, asked, subjects, first_seen):
        if NONE in asked.prompts:
            return back.refusal(refusals.LOGIN_REQUIRED)
        return _to_sign_in(house, sent, asked, who)
    if subjects is not None and str(who.user_id) not in subjects:
        return back.refusal(refusals.LOGIN_REQUIRED.because("signed in as somebody else than was asked for"))

    if _must_consent(who, asked, client, first_seen):
        if NONE in asked.prompts:
            return back.refusal(refusals.CONSENT_REQUIRED)
        return _to_consent(house, sent, asked)

    return back.code(await _code(house, sent, who, asked))


async def _by_get(request: Request, house: Services) -> Response:
    """Have the browser come again: from another site it posts without the cookie of the sign-in (SameSite=Lax)."""
    form = await read_form_bytes(request, read_head(request.scope["headers"]))
    if isinstance(form, Refusal):
        raise ShownToPerson("malformed_request", form.description)
    return see_other(f"{house.settings.base_path}/authorize?{parameters.read(form).query()}")


async def _client(house: Services, sent: Parameters) -> Client:
    if not sent.broken.isdisjoint({"client_id", "redirect_uri", "request_uri"}):
        raise ShownToPerson("malformed_request", "client_id, redirect_uri or request_uri is repeated or malformed")
    client_id = sent.values.get("client_id", "")
    requests.note(client_id=client_id)
    # It is looked at again when the code is redeemed.
    client = await house.clients.find_active(client_id, briefly_cached=True)
    if client is None:
        raise ShownToPerson("unknown_client", "unknown client, or switched off")
    return client


def _way_back(house: Services, client: Client, values: dict[str, str]) -> WayBack:
    uri = redirect_uri.choose(client, values)
    if uri is None:
        raise ShownToPerson("redirect_uri", "the redirect URI is missing, or not one of the client's")
    return WayBack.of(values, uri, house.settings.issuer)


async def _subjects(house: Services, asked: AuthorizationRequest) -> frozenset[str] | Refusal | None:
    """Return of which users the answer may speak (`id_token_hint`, `claims`); None if of anybody."""
    if asked.id_token_hint is None:
        return asked.subjects
    hint = await house.id_tokens.read(asked.id_token_hint)
    if hint is None:
        return refusals.invalid_request("The id_token_hint is not an ID token of this server.")
    named = frozenset({hint.subject})
    return named if asked.subjects is None else named & asked.subjects


def _still_asked(asked: AuthorizationRequest, sent: Parameters, first_seen: int | None) -> AuthorizationRequest:
    """Return the request without the choice of an account, if the person has made it."""
    has_chosen = first_seen is not None and sent.chosen is not None
    return replace(asked, prompts=asked.prompts - {SELECT_ACCOUNT}) if has_chosen else asked


def _must_prove_anew(
    who: SignedIn, asked: AuthorizationRequest, subjects: frozenset[str] | None, first_seen: int | None
) -> bool:
    """Tell whether somebody who is signed in has to sign in for this request, and has not done so since it came."""
    authenticated_at = int(who.authenticated_at.timestamp())
    if first_seen is not None and authenticated_at >= first_seen:
        return False
    is_asked = not asked.prompts.isdisjoint({LOGIN, SELECT_ACCOUNT})
    is_old = asked.max_age is not None and clock.now().timestamp() - authenticated_at >= asked.max_age
    is_somebody_else = subjects is not None and str(who.user_id) not in subjects
    return is_asked or is_old or is_somebody_else


def _must_consent(who: SignedIn, asked: AuthorizationRequest, client: Client, first_seen: int | None) -> bool:
    """Tell whether the user has yet to agree to what this client asks for."""
    given_at = None if who.consent_given_at is None else int(who.consent_given_at.timestamp())
    if CONSENT in asked.prompts and (given_at is None or first_seen is None or given_at < first_seen):
        return True
    given = set() if who.consent_scope is None else set(who.consent_scope.split(" "))
    return not client.is_trusted and not set(asked.consent_to.split(" ")) <= given


def _to_sign_in(house: Services, sent: Parameters, asked: AuthorizationRequest, who: SignedIn | None) -> Response:
    prompt = SELECT_ACCOUNT if SELECT_ACCOUNT in asked.prompts else LOGIN if who is not None else None
    return _to_page(house, "login", sent, asked, login_hint=asked.login_hint, prompt=prompt)


def _to_consent(house: Services, sent: Parameters, asked: AuthorizationRequest) -> Response:
    return _to_page(house, "consent", sent, asked, scope=asked.consent_to)


def _to_page(house: Services, page: str, sent: Parameters, asked: AuthorizationRequest, **more: str | None) -> Response:
    """Send the browser to one of our pages, from where it comes back with the same request and a ticket."""
    metrics.AUTHORIZATIONS.labels(page).inc()
    base = house.settings.base_path
    chosen = [] if sent.chosen is None else [(CHOSEN, sent.chosen)]
    here_again = f"{base}/authorize?{sent.query((TICKET, ticket.keep(house.settings, sent)), *chosen)}"
    known = {"continue": here_again, "client_id": asked.allowed.client_id, "ui_locales": asked.ui_locales, **more}
    return see_other(f"{base}/{page}?{urlencode({name: value for name, value in known.items() if value is not None})}")


async def _code(house: Services, sent: Parameters, who: SignedIn, asked: AuthorizationRequest) -> str:
    """Return a code; a pushed request gives one only, whoever else comes with it at the same moment."""
    pushed_as = sent.values.get("request_uri")
    if pushed_as is None:
        return await house.authorization_codes.issue(who, asked.allowed)
    async with house.db.write() as tx:
        if not await pushed.use(tx, pushed_as):
            raise ShownToPerson("request_expired", "the pushed request was used up at this moment")
        return await house.authorization_codes.issue(who, asked.allowed, tx)
