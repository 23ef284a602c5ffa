"""/docs, /openapi.json and /errors."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.factories import NewClient, basic


async def test_the_description_names_every_endpoint_with_summary_and_errors(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = {"/token", "/introspect", "/revoke", "/userinfo", "/register", "/users/me", "/health/ready", "/metrics"}
    assert paths <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert "422" not in operation["responses"] or path not in ("/token", "/introspect", "/revoke")
    for path in ("/token", "/introspect", "/revoke"):
        operation = document["paths"][path]["post"]
        assert {"200", "400", "401", "429", "503"} <= set(operation["responses"])
        content = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]
        assert content["schema"]["properties"]
        assert content["examples"]


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
async def test_the_required_fields_are_those_that_are_required(
    client: httpx.AsyncClient, new_client: NewClient, path: str
) -> None:
    document = (await client.get("/openapi.json")).json()
    form = document["paths"][path]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    app = await new_client()
    for field in form["required"]:
        others = {name: "x" for name in form["required"] if name != field}
        response = await client.post(path, data={**others, "unknown": "x"}, auth=basic(app))
        assert response.json() == {
            "error": "invalid_request",
            "error_description": f"The parameter {field} is missing.",
        }


async def test_every_reference_in_the_description_resolves(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for child in node.values():
                check(child)
        elif isinstance(node, list):
            for child in node:
                check(child)

    check(document)
    schemes = document["components"]["securitySchemes"]
    for operations in document["paths"].values():
        for operation in operations.values():
            for requirement in operation.get("security", []):
                assert set(requirement) <= set(schemes)


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/docs/oauth2-redirect",
        "/docs/oauth2-redirect.js",
    ],
)
async def test_swagger_ui_comes_from_our_own_files(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert len(response.content) > 100


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect"])
async def test_the_page_runs_no_script_but_ours(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "http" not in page.text


@pytest.mark.parametrize("path", ["/docs/secrets.txt", "/docs/..%2fapp.py", "/docs/%2e%2e/app.py"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_production_has_no_docs_unless_switched_on(client_with: Callable[..., Any]) -> None:
    secret = "a secret of thirty-two characters or more"
    production = await client_with(environment="production", secret_key=secret)
    for path in ("/docs", "/docs/start.js", "/docs/oauth2-redirect", "/openapi.json"):
        assert (await production.get(path)).status_code == 404
    assert (await production.get("/errors")).status_code == 200
    switched_on = await client_with(environment="production", secret_key=secret, docs_enabled=True)
    assert (await switched_on.get("/docs")).status_code == 200
    assert '"docs"' not in (await switched_on.get("/docs/start.js")).text  # the demo client is for development


async def test_the_error_types_are_explained_by_the_server_itself(client: httpx.AsyncClient) -> None:
    response = await client.get("/errors")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/markdown")
