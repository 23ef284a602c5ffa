"""The `claims` parameter: single claims asked for by name (OpenID Connect Core §5.5)."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import orjson

from authserver.oauth.claims import BY_SCOPE

SCOPE_OF = {name: scope for scope, names in BY_SCOPE.items() for name in names}
"""The scope that each claim about a user belongs to: consent is given to scopes."""


@dataclass(frozen=True)
class AskedClaims:
    """What the parameter asks for, as far as there is such a claim."""

    id_token: tuple[str, ...] = ()
    userinfo: tuple[str, ...] = ()
    subjects: frozenset[str] | None = None
    """The answer may only speak of one of these users."""
    acr_values: frozenset[str] | None = None
    """The user must sign in in one of these ways."""

    @property
    def scopes(self) -> set[str]:
        """The scopes that they belong to."""
        return {SCOPE_OF[name] for name in (*self.id_token, *self.userinfo)}

    def within(self, scopes: Collection[str]) -> "AskedClaims":
        """Return what is left of them for a client that may not ask for all scopes; that is no error (§5.5.1)."""
        id_token, userinfo = (
            tuple(name for name in names if SCOPE_OF[name] in scopes) for names in (self.id_token, self.userinfo)
        )
        return replace(self, id_token=id_token, userinfo=userinfo)


def read(text: str | None) -> AskedClaims | None:
    """Return what is asked for; None if it is not as §5.5 wants it. Unknown members and claims are ignored (§5.5)."""
    if text is None:
        return AskedClaims()
    try:
        asked = orjson.loads(text)
    except ValueError:
        return None
    if not isinstance(asked, dict):
        return None
    members = [asked.get("id_token") or {}, asked.get("userinfo") or {}]
    if not all(isinstance(member, dict) and all(map(_is_well_formed, member.values())) for member in members):
        return None
    id_token, userinfo = members
    subjects = _values(id_token.get("sub"))
    if subjects is None:
        subjects = _values(userinfo.get("sub"))
    acr = id_token.get("acr") or {}
    return AskedClaims(
        id_token=tuple(name for name in SCOPE_OF if name in id_token),
        userinfo=tuple(name for name in SCOPE_OF if name in userinfo),
        subjects=subjects,
        acr_values=_values(acr) if acr.get("essential") else None,
    )


def _is_well_formed(wish: Any) -> bool:
    if wish is None:
        return True
    return (
        isinstance(wish, dict)
        and isinstance(wish.get("essential", False), bool)
        and isinstance(wish.get("values", []), list)
    )


def _values(wish: dict[str, Any] | None) -> frozenset[str] | None:
    """Return the values that a claim may have; None if any."""
    if not wish or not wish.keys() & {"value", "values"}:
        return None
    values = [wish["value"]] if "value" in wish else wish["values"]
    return frozenset(value for value in values if isinstance(value, str))
