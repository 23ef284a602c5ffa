"""The grants: one file, one async function each; the whole rule stands there, top to bottom."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.grants.authorization_code import authorization_code
from authserver.oauth.grants.client_credentials import client_credentials
from authserver.oauth.grants.password import password
from authserver.oauth.grants.refresh_token import refresh_token
from authserver.services import Services

Grant = Callable[[Services, Asked], Awaitable[Response | Refusal]]

GRANTS: dict[str, Grant] = {
    "authorization_code": authorization_code,
    "client_credentials": client_credentials,
    "password": password,
    "refresh_token": refresh_token,
}
