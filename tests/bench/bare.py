"""What the frameworks cost when the server does nothing: the floor under every figure. Served by uvicorn."""

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_ANSWER = b'{"active":true}'


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer, nothing else."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


async def _route(request: Request) -> Response:
    await request.body()
    return JSONResponse({"active": True})


starlette = Starlette(routes=[Route("/introspect", _route, methods=["POST"])])

fastapi = FastAPI()


@fastapi.post("/introspect")
async def _endpoint(request: Request) -> dict[str, bool]:
    await request.body()
    return {"active": True}
