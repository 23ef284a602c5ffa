"""Apache as resource server, where it and its modules are installed: mod_oauth2, and mod_auth_openidc as its elder.

mod_auth_openidc speaks only to an https introspection endpoint, so Apache also terminates TLS here, as a proxy would.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.application import Program
from tests.factories import basic, bearer
from tests.interop import apache
from tests.interop.apache import directory
from tests.interop.conftest import Actors, tokens
from tests.servers import LOOPBACK, free_port

__all__ = ["directory"]  # a fixture

MODULES = [
    "mpm_event", "authn_core", "authz_core", "authz_user", "dir", "ssl", "proxy", "proxy_http",
    "oauth2", "auth_openidc",
]  # fmt: skip


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (apache.PROGRAM and apache.modules(MODULES)), reason="no Apache with mod_oauth2 and mod_auth_openidc"
    ),
]

CONFIGURATION = """
Listen {loopback}:{tls_port}
<VirtualHost {loopback}:{tls_port}>
  SSLEngine on
  SSLCertificateFile {directory}/certificate.pem
  SSLCertificateKeyFile {directory}/key.pem
  ProxyPass / {url}/
</VirtualHost>
<VirtualHost {loopback}:{port}>
  <Location /mod_oauth2/introspection>
    AuthType oauth2
    OAuth2TokenVerify introspect {url}/introspect introspect.auth=client_secret_basic&client_id={client_id}&client_secret={quoted_secret}&expiry=1
    Require oauth2_claim username:{username}
  </Location>
  <Location /mod_oauth2/keys>
    AuthType oauth2
    OAuth2TokenVerify jwks_uri {url}/.well-known/jwks.json
    Require oauth2_claim iss:{url}
  </Location>
  <Location /mod_oauth2/metadata>
    AuthType oauth2
    OAuth2TokenVerify metadata {url}/.well-known/oauth-authorization-server introspect.auth=client_secret_basic&client_id={client_id}&client_secret={quoted_secret}
    Require oauth2_claim iss:{url}
  </Location>
  OIDCOAuthIntrospectionEndpoint https://localhost:{tls_port}/introspect
  OIDCOAuthClientID {client_id}
  OIDCOAuthClientSecret {client_secret}
  OIDCOAuthSSLValidateServer Off
  OIDCOAuthTokenIntrospectionInterval 0
  OIDCOAuthRemoteUserClaim username
  <Location /mod_auth_openidc>
    AuthType oauth20
    Require user {username}
  </Location>
</VirtualHost>
"""  # noqa: E501 - Apache's directives have no line breaks


@pytest.fixture
async def gate(server: Program, actors: Actors, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Apache with a page behind each module; yields a client of it."""
    api = actors.resource_server
    assert api.secret
    port, tls_port = free_port(), free_port()
    for place in ("mod_oauth2/introspection", "mod_oauth2/keys", "mod_oauth2/metadata", "mod_auth_openidc"):
        page = directory / "www" / place / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("let in")
    write_certificate(directory)
    configuration = CONFIGURATION.format(
        directory=directory, loopback=LOOPBACK, port=port, tls_port=tls_port, url=server.url,
        client_id=api.client_id, client_secret=api.secret, quoted_secret=quote(api.secret),
        username=actors.user.username,
    )  # fmt: skip
    async with apache.running(directory, port, MODULES, configuration) as client:
        yield client


def write_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(private)


@pytest.mark.parametrize(
    ("page", "asks"),
    [
        ("/mod_oauth2/introspection/", True),
        ("/mod_oauth2/keys/", False),
        ("/mod_oauth2/metadata/", None),  # the module chooses by what the token looks like
        ("/mod_auth_openidc/", True),
    ],
)
async def test_apache(
    gate: httpx.AsyncClient, http: httpx.AsyncClient, actors: Actors, page: str, asks: bool | None
) -> None:
    issued = await tokens(http, actors)
    access = issued["access_token"]
    assert (await gate.get(page)).status_code == 401
    # A refresh token is no bearer token: the resource server sees it as inactive.
    for wrong in ("not.a.token", access[:-10] + "AAAAAAAAAA", issued["refresh_token"]):
        assert (await gate.get(page, headers=bearer(wrong))).status_code == 401
    answer = await gate.get(page, headers=bearer(access))
    assert (answer.status_code, answer.text) == (200, "let in")
    revoked = await http.post("/revoke", data={"token": issued["refresh_token"]}, auth=basic(actors.confidential))
    assert revoked.status_code == 200
    if asks:
        await asyncio.sleep(1.2)  # mod_oauth2 keeps what it was told for a second, as configured
        assert (await gate.get(page, headers=bearer(access))).status_code == 401
