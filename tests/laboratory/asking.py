"""Asks a node, and writes down what was asked and what the answer comes to."""

from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpx

from tests.factories import App, basic, bearer, claims_of
from tests.laboratory.history import Event, Outcome, What
from tests.laboratory.nodes import Node

_DONE = {What.REGISTER: 201, What.CHANGE_PASSWORD: 204, What.SIGN_OUT: 204, What.SIGN_OUT_EVERYWHERE: 204,
         What.DELETE_ACCOUNT: 204}  # fmt: skip
"""Else 200."""
_PROBLEMS = {(401, "unauthenticated"), (400, "wrong-password"), (409, "username-taken"), (409, "email-taken")}
_FORMS = frozenset({What.SIGN_IN, What.REFRESH, What.INTROSPECT, What.INTROSPECT_REFRESH, What.REVOKE_ACCESS,
                    What.REVOKE_REFRESH})  # fmt: skip


@dataclass(frozen=True)
class Token:
    """An access or refresh token, and whose it is."""

    text: str
    session: str
    user: str
    jti: str = ""
    """Of an access token."""

    @property
    def name(self) -> str:
        """What the history calls it."""
        return self.jti or self.text


@dataclass(frozen=True)
class Tokens:
    """What a sign-in or a refresh gave."""

    access: Token
    refresh: Token


class Asker:
    """Sends requests with the laboratory's client; `history` has every one of them."""

    def __init__(self, app: App) -> None:
        self._basic = basic(app)
        self.history: list[Event] = []

    async def register(self, node: Node, user: str, password: str) -> Event:
        body = {"username": user, "email": f"{user}@example.com", "password": password}
        event, _ = await self._ask(What.REGISTER, node, "/register", json=body, user=user, password=password)
        return event

    async def sign_in(self, node: Node, user: str, password: str) -> tuple[Event, Tokens | None]:
        form = {"grant_type": "password", "username": user, "password": password}
        return await self._ask(What.SIGN_IN, node, "/token", form=form, user=user, password=password)

    async def refresh(self, node: Node, token: Token) -> tuple[Event, Tokens | None]:
        form = {"grant_type": "refresh_token", "refresh_token": token.text}
        return await self._ask(What.REFRESH, node, "/token", form=form, token=token)

    async def introspect(self, node: Node, token: Token) -> Event:
        what = What.INTROSPECT if token.jti else What.INTROSPECT_REFRESH
        return (await self._ask(what, node, "/introspect", form={"token": token.text}, token=token))[0]

    async def revoke(self, node: Node, token: Token) -> Event:
        what = What.REVOKE_ACCESS if token.jti else What.REVOKE_REFRESH
        return (await self._ask(what, node, "/revoke", form={"token": token.text}, token=token))[0]

    async def userinfo(self, node: Node, token: Token) -> Event:
        return (await self._ask(What.USERINFO, node, "/userinfo", method="GET", bearer_of=token))[0]

    async def me(self, node: Node, token: Token) -> Event:
        return (await self._ask(What.ME, node, "/users/me", method="GET", bearer_of=token))[0]

    async def change_password(self, node: Node, token: Token, password: str, new: str) -> Event:
        body = {"current_password": password, "new_password": new}
        event, _ = await self._ask(
            What.CHANGE_PASSWORD, node, "/users/me/password",
            json=body, bearer_of=token, password=password, new_password=new,
        )  # fmt: skip
        return event

    async def sign_out(self, node: Node, token: Token) -> Event:
        path = f"/users/me/sessions/{token.session}"
        return (await self._ask(What.SIGN_OUT, node, path, method="DELETE", bearer_of=token))[0]

    async def sign_out_everywhere(self, node: Node, token: Token) -> Event:
        what = What.SIGN_OUT_EVERYWHERE
        return (await self._ask(what, node, "/users/me/sessions", method="DELETE", bearer_of=token))[0]

    async def delete_account(self, node: Node, token: Token) -> Event:
        return (await self._ask(What.DELETE_ACCOUNT, node, "/users/me", method="DELETE", bearer_of=token))[0]

    async def _ask(
        self,
        what: What,
        node: Node,
        path: str,
        *,
        method: str = "POST",
        form: dict[str, str] | None = None,
        json: dict[str, str] | None = None,
        token: Token | None = None,
        bearer_of: Token | None = None,
        user: str = "",
        password: str = "",
        new_password: str = "",
    ) -> tuple[Event, Tokens | None]:
        about = token or bearer_of
        user = about.user if about else user
        tokens, session = None, about.session if about else ""
        headers = bearer(bearer_of.text) if bearer_of else {}
        started = monotonic()
        try:
            response = await node.http.request(
                method, path, data=form, json=json, headers=headers, auth=self._basic if form else None
            )
        except httpx.TransportError as failure:
            ended, outcome, said = monotonic(), Outcome.SILENCE, type(failure).__name__
        else:
            ended = monotonic()
            outcome, said = _verdict(what, response)
            if outcome is Outcome.YES and what in {What.SIGN_IN, What.REFRESH}:
                tokens = _tokens(response.json(), user)
                session = tokens.access.session
        event = Event(
            what=what,
            node=node.name,
            started=started,
            ended=ended,
            outcome=outcome,
            said=said,
            user=user,
            password=password,
            new_password=new_password,
            token=about.name if about else "",
            session=session,
            new_access=tokens.access.jti if tokens else "",
            new_refresh=tokens.refresh.text if tokens else "",
        )
        self.history.append(event)
        return event, tokens


def _verdict(what: What, response: httpx.Response) -> tuple[Outcome, str]:
    """Tell what an answer comes to, with its error code; one that is not as docs/operations.md says is strange."""
    is_form, status = what in _FORMS, response.status_code
    error = _error(response, is_form)
    if status == _DONE.get(what, 200) and response.headers.get("cache-control") == "no-store":
        if what not in {What.INTROSPECT, What.INTROSPECT_REFRESH}:
            return Outcome.YES, ""
        body = response.json()
        if body["active"] or body == {"active": False}:
            return (Outcome.YES if body["active"] else Outcome.NO), ""
    is_unavailable = error == ("temporarily_unavailable" if is_form else "temporarily-unavailable")
    if status == 503 and is_unavailable and response.headers.get("retry-after", "").isdecimal():
        return Outcome.UNAVAILABLE, ""
    is_refused = what in {What.SIGN_IN, What.REFRESH} and (status, error) == (400, "invalid_grant")
    is_problem = (status, error) in _PROBLEMS and (status != 401 or "www-authenticate" in response.headers)
    if is_refused or is_problem:
        return Outcome.NO, error
    return Outcome.STRANGE, f"{status} {response.text[:300]}"


def _error(response: httpx.Response, is_form: bool) -> str:
    """Return the error code in the form that is right for the endpoint, or nothing."""
    media_type = response.headers.get("content-type", "")
    if is_form and media_type == "application/json":
        return str(response.json().get("error", ""))
    if not is_form and media_type == "application/problem+json":
        return str(response.json()["type"]).rpartition("#")[2]
    return ""


def _tokens(body: dict[str, Any], user: str) -> Tokens:
    claims = claims_of(body["access_token"])
    session = str(claims["sid"])
    access = Token(body["access_token"], session, user, str(claims["jti"]))
    return Tokens(access, Token(body["refresh_token"], session, user))
