"""The options that `clients create` and `clients update` have in common: one for each column that both can set."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from authserver.cli.output import Answer
from authserver.errors import BadRequest

Work = Callable[..., Awaitable[Answer]]


def _list(option: str, told: str) -> Any:
    return Annotated[list[str] | None, typer.Option(option, help=f"{told}; may be repeated.")]


def _text(option: str, told: str) -> Any:
    return Annotated[str | None, typer.Option(option, help=told)]


def _switch(name: str, told: str) -> Any:
    return Annotated[bool | None, typer.Option(f"--{name}/--no-{name}", help=told)]


def _algorithm(option: str, told: str) -> Any:
    return Annotated[Literal["RS256", "ES256", "EdDSA"] | None, typer.Option(option, help=told)]


COLUMNS: Mapping[str, Any] = {
    "grants": _list("--grant", "authorization_code, refresh_token, client_credentials or password"),
    "scopes": _list("--scope", "openid, profile, email, offline_access, or one of your own"),
    "audience": _list("--audience", "A resource server that its tokens are for"),
    "redirect_uris": _list("--redirect-uri", "Where browsers may be sent back to"),
    "post_logout_redirect_uris": _list("--post-logout-redirect-uri", "Where browsers may be sent after sign-out"),
    "backchannel_logout_uri": _text("--backchannel-logout-uri", "Where it is told that a sign-in has ended."),
    "require_pkce": _switch("require-pkce", "Default: required. A public client always uses PKCE."),
    "require_pushed_requests": _switch("require-pushed-requests", "Take only authorization requests that it pushed."),
    "require_signed_requests": _switch("require-signed-requests", "Take only authorization requests that it signed."),
    "is_trusted": _switch("trusted", "It is your own: people are not asked for consent."),
    "default_max_age": Annotated[
        int | None,
        typer.Option(
            "--default-max-age", min=0, max=2**31 - 1, help="Whose sign-in is older (seconds) signs in again."
        ),
    ],
    "id_token_alg": _algorithm("--id-token-alg", "What its ID tokens are signed with. Default: RS256."),
    "userinfo_alg": _algorithm("--userinfo-alg", "Sign /userinfo for it with this. Default: plain JSON."),
    "uri": _text("--uri", "Its home page, for people."),
    "policy_uri": _text("--policy-uri", "Its privacy policy, for people."),
    "tos_uri": _text("--tos-uri", "Its terms of service, for people."),
    "may_introspect": _switch("introspect", "It may ask about every access token."),
}
"""The columns of models.py, each with its option."""
_REMOVABLE: Mapping[str, list[str] | None] = {
    **dict.fromkeys(("backchannel_logout_uri", "default_max_age", "userinfo_alg", "uri", "policy_uri", "tos_uri")),
    **{name: [] for name in ("grants", "audience", "redirect_uris", "post_logout_redirect_uris")},
}
"""What can be taken away from a client, and what is then there."""
Without = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help=f"Take this away: {', '.join(_REMOVABLE)}; may be repeated.")
]
KeyFile = Annotated[
    Path, typer.Option("--jwks", exists=True, dir_okay=False, help="A file with its public keys (JWK set).")
]


def with_columns(work: Work) -> Work:
    """Give a command that takes `**columns` an option for each of them."""
    signature = inspect.signature(work)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in COLUMNS.items()
    ]
    work.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    return work


def given(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said. `--scope "openid email"` is two of them: that is how OAuth writes lists."""
    said = {name: value for name, value in columns.items() if value is not None}
    for name in {"grants", "scopes"} & set(said):
        said[name] = [word for value in said[name] for word in value.split()]
    return said


def taken_away(names: list[str] | None) -> dict[str, Any]:
    """Return what these columns are when they are empty; BadRequest if one of them never is."""
    if unknown := set(names or ()) - set(_REMOVABLE):
        raise BadRequest(f"{' and '.join(sorted(unknown))} cannot be taken away; only {', '.join(_REMOVABLE)}.")
    return {name: _REMOVABLE[name] for name in names or ()}


def key_set(file: Path) -> object:
    """Read a key set; a key alone is a set of one."""
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as invalid:
        raise BadRequest(f"{file.name} is not JSON.") from invalid
    return {"keys": [document]} if isinstance(document, dict) and "kty" in document else document
