"""The addresses of the pages. They work without scripts: a form is posted, a page or a redirect comes back."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from authserver import services
from authserver.pages import account, account_changes, assets, consent, login, logout, signup
from authserver.pages.look import Look
from authserver.settings import Settings

_OURS = frozenset({"login", "logout", "signup", "consent", "account", "authorize"})
"""First parts of paths where people are, /authorize (oauth/) among them: errors are pages there."""

_CHANGES = (
    ("profile", "profile", account_changes.rename),
    ("password", "password", account_changes.set_password),
    ("sign-out", "sign_out", account_changes.sign_out),
    ("withdraw", "withdraw", account_changes.withdraw),
    ("delete", "delete", account_changes.delete),
)
"""Below /account: the address of a form, the section of the page that it stands in, what it does."""


def install(app: FastAPI, settings: Settings) -> None:
    """Add the pages to the application."""
    app.state.look = Look(settings)
    app.router.routes.extend(
        [
            Route("/", _to("/account")),
            Route("/login", login.see),
            Route("/login", login.sign_in, methods=["POST"]),
            Route("/signup", signup.see),
            Route("/signup", signup.sign_up, methods=["POST"]),
            Route("/consent", consent.see),
            Route("/consent", consent.decide, methods=["POST"]),
            Route("/account", account.see),
            *(
                Route(f"/account/{path}", account_changes.change(section, do), methods=["GET", "POST"])
                for path, section, do in _CHANGES
            ),
            Route("/logout", logout.see),
            Route("/logout", logout.sign_out, methods=["POST"]),
            Route("/assets/{name}", assets.asset),
            Route("/favicon.ico", assets.icon),
            Route("/.well-known/change-password", _to("/account#password")),
        ]
    )


def is_for_people(path: str) -> bool:
    """Tell whether whoever asks for the path is a person in a browser, who shall see a page whatever goes wrong."""
    return path == "/" or path.split("/", 2)[1] in _OURS


def _to(path: str) -> Callable[[Request], Awaitable[Response]]:
    async def redirect(request: Request) -> Response:
        target = services.of(request).settings.base_path + path
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})

    return redirect
