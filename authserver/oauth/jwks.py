"""GET /.well-known/jwks.json: the public keys (RFC 7517 §5)."""

from functools import lru_cache

import orjson
from starlette.requests import Request
from starlette.responses import Response

from authserver import opaque, services
from authserver.oauth.errors import ReadyResponse


async def jwks(request: Request) -> Response:
    """Return the keys that verify our tokens, the announced next one among them."""
    house = services.of(request)
    keys = [key.public_jwk for key in house.keyring.published()]
    return cacheable(request, {"keys": keys}, house.keyring.max_age_seconds())


def cacheable(request: Request, document: object, max_age_seconds: int) -> Response:
    """Return a public document that may be kept so long, or 304 if the caller has it (RFC 9110 §13.1.2)."""
    body = orjson.dumps(document)
    etag, headers = _headers(body, max_age_seconds)
    if any(name == b"if-none-match" and etag in value for name, value in request.scope["headers"]):
        return Response(status_code=304, headers={name.decode(): value.decode() for name, value in headers[1:]})
    return ReadyResponse(body, 200, headers)


@lru_cache(maxsize=16)
def _headers(body: bytes, max_age_seconds: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the entity tag of a document, and all its headers."""
    etag = f'"{opaque.digest(body)[:32]}"'.encode()
    age = b"public, max-age=%d" % max_age_seconds
    return etag, [(b"content-type", b"application/json"), (b"cache-control", age), (b"etag", etag)]
