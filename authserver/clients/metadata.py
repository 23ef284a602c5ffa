"""What is known of a client: what it says of itself and what it is allowed (RFC 7591 §2), and what of that is wrong."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self, get_args

from authserver.clients import jwks, uris
from authserver.clients.models import AuthMethod, Client
from authserver.errors import Fault
from authserver.text import is_clean

DEFAULT_SCOPES = ("openid", "profile", "email")
KNOWN_GRANTS = ("authorization_code", "client_credentials", "password", "refresh_token")
"""What a client may be given; oauth/grants has a function for each."""
SIGNING_ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""What ID tokens and /userinfo may be signed with for it."""
MAX_AGE_SECONDS = 2**31 - 1
_MAX_URIS = 50
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # scope-token of RFC 6749 §3.3
_MAX_SCOPE_CHARACTERS = 1000


@dataclass(frozen=True)
class Metadata:
    """The columns of the same names, which models.py explains."""

    name: str
    auth_method: str | None = None
    jwks: object = None
    grants: Sequence[str] = ()
    scopes: Sequence[str] = DEFAULT_SCOPES
    audience: Sequence[str] = ()
    redirect_uris: Sequence[str] = ()
    post_logout_redirect_uris: Sequence[str] = ()
    backchannel_logout_uri: str | None = None
    require_pkce: bool = True
    require_pushed_requests: bool = False
    require_signed_requests: bool = False
    is_trusted: bool = False
    default_max_age: int | None = None
    id_token_alg: str = "RS256"
    userinfo_alg: str | None = None
    uri: str | None = None
    policy_uri: str | None = None
    tos_uri: str | None = None
    may_introspect: bool = False

    @classmethod
    def of(cls, client: Client) -> Self:
        """Return what is known of a client."""
        known = {field.name: getattr(client, field.name) for field in fields(Metadata)}
        known["post_logout_redirect_uris"] = known["post_logout_redirect_uris"] or ()
        return cls(**known)

    def write(self, client: Client) -> None:
        """Make it what is known of a client; each value of a list once."""
        for field in fields(Metadata):
            value = getattr(self, field.name)
            setattr(client, field.name, list(dict.fromkeys(value)) if isinstance(value, list | tuple) else value)

    def faults(self) -> list[Fault]:
        """Return all that is wrong with it."""
        return [*self._wrong_values(), *self._wrong_addresses(), *self._wrong_rights(), *self._wrong_proof()]

    def _wrong_values(self) -> Iterator[Fault]:
        if not 1 <= len(self.name) <= 100 or not is_clean(self.name):
            yield Fault("/name", "A name has 1 to 100 characters, no control characters.")
        if not set(self.grants) <= set(KNOWN_GRANTS):
            yield Fault("/grants", f"There is no grant of that name; there are {', '.join(KNOWN_GRANTS)}.")
        if not self.scopes or len(" ".join(self.scopes)) > _MAX_SCOPE_CHARACTERS:
            yield Fault("/scopes", f"One scope at least, {_MAX_SCOPE_CHARACTERS} characters at most in all.")
        if not all(_SCOPE.fullmatch(scope) for scope in self.scopes):
            yield Fault("/scopes", "A scope has no spaces, quotes or backslashes, only ASCII (RFC 6749 §3.3).")
        if not all(audience and is_clean(audience) and len(audience) <= 255 for audience in self.audience):
            yield Fault("/audience", "An audience has 1 to 255 characters, no control characters.")
        for name in ("id_token_alg", "userinfo_alg"):
            if getattr(self, name) not in (None, *SIGNING_ALGORITHMS):
                yield Fault(f"/{name}", f"We sign with {', '.join(SIGNING_ALGORITHMS)}.")
        if self.default_max_age is not None and not 0 <= self.default_max_age <= MAX_AGE_SECONDS:
            yield Fault("/default_max_age", f"An age is 0 to {MAX_AGE_SECONDS} seconds.")

    def _wrong_addresses(self) -> Iterator[Fault]:
        for name in ("redirect_uris", "post_logout_redirect_uris"):
            addresses = getattr(self, name)
            if len(addresses) > _MAX_URIS or not all(map(uris.is_redirect_uri, addresses)):
                yield Fault(
                    f"/{name}",
                    f"A redirect URI is absolute, without fragment, wildcard and user, {uris.MAX_CHARACTERS} "
                    "characters at most: https, http on 127.0.0.1, [::1] or localhost, or an app's own scheme with a "
                    f"dot in it (RFC 8252 §7). {_MAX_URIS} at most.",
                )
        if self.backchannel_logout_uri is not None and not uris.is_backchannel_uri(self.backchannel_logout_uri):
            yield Fault("/backchannel_logout_uri", "It is https, or http on this machine, without fragment and user.")
        for name in ("uri", "policy_uri", "tos_uri"):
            page = getattr(self, name)
            if page is not None and not uris.is_page(page):
                yield Fault(f"/{name}", "A page's address begins with https:// or http://, without fragment and user.")

    def _wrong_rights(self) -> Iterator[Fault]:
        if "authorization_code" in self.grants and not self.redirect_uris:
            yield Fault("/redirect_uris", "The grant authorization_code needs a redirect URI.")
        if self.auth_method != "none":
            return
        if "client_credentials" in self.grants:
            yield Fault("/grants", "Only a client that can prove itself can act for itself (RFC 6749 §4.4).")
        if self.may_introspect:
            yield Fault("/introspect", "Only a client that can prove itself can introspect.")
        if not self.require_pkce:
            yield Fault("/require_pkce", "A public client always uses PKCE (RFC 9700 §2.1.1).")

    def _wrong_proof(self) -> Iterator[Fault]:
        if self.auth_method not in (None, *get_args(AuthMethod)):
            yield Fault("/auth_method", f"There are the methods {', '.join(get_args(AuthMethod))}.")
        if self.jwks is None:
            if self.auth_method == "private_key_jwt" or self.require_signed_requests:
                yield Fault("/jwks", "It signs with keys (private_key_jwt, signed requests), so it must have some.")
        elif self.auth_method == "none":
            yield Fault("/jwks", "Keys are for a client that can keep them: not for a public one.")
        else:
            yield from jwks.faults(self.jwks)
