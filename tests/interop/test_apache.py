"""Apache as resource server, where it and its modules are installed: mod_oauth2, and mod_auth_openidc as its elder.

mod_auth_openidc speaks only to an https introspection endpoint, so Apache also terminates TLS here, as a proxy would.
"""

import asyncio
import datetime as dt
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
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
from tests.interop.conftest import Actors, tokens
from tests.servers import LOOPBACK, free_port

APACHE = shutil.which("apache2") or shutil.which("httpd")
MODULES = [
    "mpm_event", "authn_core", "authz_core", "authz_user", "dir", "ssl", "proxy", "proxy_http",
    "oauth2", "auth_openidc",
]  # fmt: skip


def modules() -> Path | None:
    """Return the directory of Apache's modules when all that are needed are there."""
    places = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
    return next((place for place in places if all((place / f"mod_{name}.so").exists() for name in MODULES)), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (APACHE and modules()), reason="no Apache with mod_oauth2 and mod_auth_openidc"),
]

CONFIGURATION = """
ServerRoot {directory}
ServerName localhost
PidFile {directory}/pid
ErrorLog {directory}/error.log
DefaultRuntimeDir {directory}
Mutex file:{directory}
{user}
{modules}
Listen {loopback}:{port}
Listen {loopback}:{tls_port}
DocumentRoot {directory}/www
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
def directory() -> Iterator[Path]:
    """Make a directory that others may read: root's Apache hands requests to nobody."""
    made = Path(tempfile.mkdtemp(prefix="authserver-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def apache(server: Program, actors: Actors, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Apache with a page behind each module; yields a client of it."""
    api = actors.resource_server
    found = modules()
    assert APACHE
    assert found
    assert api.secret
    port, tls_port = free_port(), free_port()
    for place in ("mod_oauth2/introspection", "mod_oauth2/keys", "mod_oauth2/metadata", "mod_auth_openidc"):
        page = directory / "www" / place / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("let in")
    write_certificate(directory)
    configuration = directory / "httpd.conf"
    configuration.write_text(
        CONFIGURATION.format(
            directory=directory, loopback=LOOPBACK, port=port, tls_port=tls_port, url=server.url,
            client_id=api.client_id, client_secret=api.secret, quoted_secret=quote(api.secret),
            username=actors.user.username,
            modules="\n".join(f"LoadModule {name}_module {found}/mod_{name}.so" for name in MODULES),
            user="User nobody" if os.geteuid() == 0 else "",
        )
    )  # fmt: skip
    log = (directory / "out.log").open("wb")
    start = [APACHE, "-f", str(configuration), "-DFOREGROUND"]
    process = subprocess.Popen(start, stdout=log, stderr=log)  # noqa: ASYNC220 - takes no time
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client:
            for _ in range(200):
                assert process.poll() is None, (directory / "out.log").read_text()
                try:
                    await client.get("/")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(10)
        log.close()


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
    apache: httpx.AsyncClient, http: httpx.AsyncClient, actors: Actors, page: str, asks: bool | None
) -> None:
    issued = await tokens(http, actors)
    access = issued["access_token"]
    assert (await apache.get(page)).status_code == 401
    # A refresh token is no bearer token: the resource server sees it as inactive.
    for wrong in ("not.a.token", access[:-10] + "AAAAAAAAAA", issued["refresh_token"]):
        assert (await apache.get(page, headers=bearer(wrong))).status_code == 401
    answer = await apache.get(page, headers=bearer(access))
    assert (answer.status_code, answer.text) == (200, "let in")
    revoked = await http.post("/revoke", data={"token": issued["refresh_token"]}, auth=basic(actors.confidential))
    assert revoked.status_code == 200
    if asks:
        await asyncio.sleep(1.2)  # mod_oauth2 keeps what it was told for a second, as configured
        assert (await apache.get(page, headers=bearer(access))).status_code == 401
