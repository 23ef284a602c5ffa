"""GET /.well-known/jwks.json: the public keys (RFC 7517 §5)."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from authserver import opaque, services


async def jwks(request: Request) -> Response:
    """Return the keys that verify our tokens, the announced next one among them."""
    house = services.of(request)
    keys = [key.public_jwk for key in house.keyring.published()]
    return cacheable(request, {"keys": keys}, house.keyring.max_age_seconds())


def cacheable(request: Request, document: object, max_age_seconds: int) -> Response:
    """Return a public document that may be kept so long, or 304 if the caller has it (RFC 9110 §13.1.2)."""
    body = orjson.dumps(document)
    headers = {"Cache-Control": f"public, max-age={max_age_seconds}", "ETag": f'"{opaque.digest(body)[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, media_type="application/json")
