"""Node's OAuth clients (node/*.test.mjs), where there is a Node: oauth4webapi, openid-client and others."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.application import Program
from tests.assertions import KEYS, key_set
from tests.factories import PASSWORD, NewClient
from tests.interop.conftest import Actors

SOURCES = Path(__file__).parent / "node"
CALLBACK, GOODBYE = "https://app.example/callback", "https://app.example/goodbye"
NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (NODE and NPM), reason="no node or no npm")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the locked packages; without a registry that can be reached nothing can be tried."""
    directory = tmp_path_factory.mktemp("node") / "project"
    shutil.copytree(SOURCES, directory)
    assert NPM
    done = subprocess.run(
        [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--prefer-offline"],
        cwd=directory, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        unreachable = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")
        if any(code in done.stderr for code in unreachable):
            if os.environ.get("CI"):
                pytest.fail("CI needs npm's registry, or its cache")
            pytest.skip("npm's registry cannot be reached")
        pytest.fail(done.stderr)
    return directory


async def test_node_clients(project: Path, server: Program, actors: Actors, new_client: NewClient) -> None:
    assert NODE
    assert actors.confidential.secret
    assert actors.resource_server.secret
    by_key = await new_client(auth_method="private_key_jwt", jwks=key_set(*KEYS.values()))
    by_secret = await new_client(auth_method="client_secret_jwt")
    code_flow: dict[str, Any] = {
        "grants": ["authorization_code", "refresh_token"],
        "redirect_uris": [CALLBACK],
        "post_logout_redirect_uris": [GOODBYE],
    }
    by_code, public = await new_client(**code_flow), await new_client(is_public=True, **code_flow)
    signer = await new_client(auth_method="private_key_jwt", jwks=key_set(*KEYS.values()), **code_flow)
    told = {
        "AUTHSERVER_CALLBACK": CALLBACK,
        "AUTHSERVER_GOODBYE": GOODBYE,
        "AUTHSERVER_CODE_ID": by_code.client_id,
        "AUTHSERVER_CODE_SECRET": str(by_code.secret),
        "AUTHSERVER_CODE_PUBLIC_ID": public.client_id,
        "AUTHSERVER_CODE_SIGNER_ID": signer.client_id,
        "AUTHSERVER_SIGNER_ID": by_key.client_id,
        "AUTHSERVER_SIGNER_KEYS": json.dumps([{"alg": alg, **key.as_dict(private=True)} for alg, key in KEYS.items()]),
        "AUTHSERVER_SECRET_SIGNER_ID": by_secret.client_id,
        "AUTHSERVER_SECRET_SIGNER_SECRET": str(by_secret.secret),
        "AUTHSERVER_URL": server.url,
        "AUTHSERVER_USERNAME": actors.user.username,
        "AUTHSERVER_PASSWORD": PASSWORD,
        "AUTHSERVER_CLIENT_ID": actors.confidential.client_id,
        "AUTHSERVER_CLIENT_SECRET": actors.confidential.secret,
        "AUTHSERVER_RESOURCE_SERVER_ID": actors.resource_server.client_id,
        "AUTHSERVER_RESOURCE_SERVER_SECRET": actors.resource_server.secret,
        "AUTHSERVER_PUBLIC_CLIENT_ID": actors.public.client_id,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [NODE, "--test", "--test-timeout=60000"],
        cwd=project, env={**os.environ, **told}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
