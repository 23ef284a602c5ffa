"""Every setting, its default and its unit: from `AUTHSERVER_…`, `.env` or /run/secrets (docs/configuration.md)."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import DirectoryPath, Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from authserver import redis_url

DEVELOPMENT_SECRET_KEY = "development-only-secret-key-never-use-it-in-production"
_PREFIX = "AUTHSERVER_"
_SECRETS_DIR = Path("/run/secrets")
PICTURES = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}

CommaSeparated = Annotated[list[str], NoDecode]
"""A list written as `a,b,c`."""


class SettingsError(Exception):
    """The settings are not usable; one line a fault, without any value."""


class Settings(BaseSettings):
    """All that an operator can set. Durations are in the unit that their name ends with."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",  # .env may serve other programs too; `load` refuses unknown names of ours
        hide_input_in_errors=True,
        frozen=True,
    )

    # Who we are
    issuer: str = Field("http://127.0.0.1:8000", description="Our name in every token; clients reach us here.")
    environment: Literal["development", "production"] = "development"
    secret_key: SecretStr = Field(SecretStr(DEVELOPMENT_SECRET_KEY), description="All other keys derive from it.")
    debug: bool = Field(False, description="Log at DEBUG; refused in production.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    docs_enabled: bool | None = Field(None, description="Serve /docs and /openapi.json; unset: only in development.")
    product_name: str = Field("authserver", description="Shown to people, and refused as a part of passwords.")

    # The pages
    brand_logo: FilePath | None = Field(None, description="A picture instead of icon and name.")
    brand_color: str = Field("#3457d5", pattern="^#[0-9a-fA-F]{6}$", description="Of buttons; #rrggbb.")
    pages_templates: DirectoryPath | None = Field(None, description="Its files replace those of the pages, by name.")

    # Stores
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///authserver.db")
    database_pool_size: int = Field(10, ge=1, description="Connections a process keeps.")
    database_timeout_seconds: float = Field(1.0, gt=0, le=1.0, description="For a connection, and for a transaction.")
    database_pooler: bool = Field(False, description="DATABASE_URL leads to PgBouncer in transaction mode.")
    redis_url: SecretStr = Field(SecretStr(""), description="Empty: no Redis.")
    redis_timeout_seconds: float = Field(0.1, gt=0, le=0.15, description="For one answer of Redis.")
    breaker_max_failures: int = Field(5, ge=1, description="In a row, until a store is left alone.")
    breaker_probe_seconds: float = Field(0.5, gt=0, description="Between two looks whether it is back.")
    denylist_lease_seconds: float = Field(1.0, gt=0, description="How long proof of a complete Redis list holds.")

    # Lifetimes
    access_token_seconds: int = Field(600, ge=10, le=86_400)
    refresh_token_idle_seconds: int = Field(14 * 86_400, ge=60, description="A session unused for so long ends.")
    session_max_seconds: int = Field(90 * 86_400, ge=60, description="A session ends then, however much it is used.")
    browser_session_seconds: int = Field(14 * 86_400, ge=60, description="A browser is signed in for so long.")
    authorization_code_seconds: int = Field(60, ge=1, le=600, description="In which a client must redeem a code.")
    refresh_retry_seconds: int = Field(10, ge=0, le=300, description="A just-used refresh token still gets its answer.")
    client_cache_seconds: float = Field(1.0, ge=0, le=60, description="Introspection may see a client as it was then.")
    jwks_max_age_seconds: int = Field(300, ge=0, description="How long others may keep our public keys.")
    key_rotation_seconds: int = Field(90 * 86_400, ge=0, description="A signing key signs so long; 0: until told.")
    audit_retention_seconds: int = Field(400 * 86_400, ge=86_400)

    # Pruning
    prune_enabled: bool = Field(True, description="The server deletes by itself what is over.")
    prune_interval_seconds: float = Field(300.0, gt=0, description="Between two runs of a process, more or less.")
    prune_grace_seconds: int = Field(3600, ge=120, description="What is over stays so long: clocks may be behind.")
    prune_batch_rows: int = Field(200, ge=1, le=5000, description="Rows that a transaction deletes.")
    prune_pause_seconds: float = Field(0.1, ge=0, description="Between two batches, at least.")

    # Passwords
    password_min_length: int = Field(15, ge=8, le=64, description="Characters.")
    password_max_length: int = Field(256, ge=64, le=1024, description="Characters.")
    argon2_memory_kib: int = Field(19_456, ge=8)
    argon2_time_cost: int = Field(2, ge=1, description="Passes.")
    argon2_parallelism: int = Field(1, ge=1, description="Lanes.")
    argon2_threads: int = Field(0, ge=0, description="Hashes at a time in a process; 0: cores / workers.")
    argon2_queue: int = Field(40, ge=1, description="Hashes that may wait in a process; one more is a 503.")
    registration_enabled: bool = True

    # Clients that register themselves
    client_registration: Literal["off", "initial_access_token", "open"] = "off"
    client_registration_token: SecretStr = Field(SecretStr(""), description="What lets one register a client.")
    client_registration_max_clients: int = Field(1000, ge=1, description="So many may have registered themselves.")

    # Throttling
    throttle_enabled: bool = True
    throttle_account_free_failures: int = Field(10, ge=1, description="Wrong passwords in a row without a wait.")
    throttle_account_max_failures: int = Field(100, ge=1, le=100, description="In a row, then the longest wait.")
    throttle_account_max_wait_seconds: int = Field(900, ge=1, description="Between two tries, until the maximum.")
    throttle_account_lock_seconds: int = Field(86_400, ge=60, description="The longest wait, at the maximum.")
    throttle_address_failures_per_minute: int = Field(100, ge=1, description="Wrong passwords from one address.")
    throttle_client_failures_per_minute: int = Field(1000, ge=1, description="Wrong passwords through one client.")
    throttle_client_secret_failures_per_minute: int = Field(60, ge=1, description="Wrong secrets from one address.")
    throttle_pushed_requests_per_minute: int = Field(120, ge=1, description="Of public clients, from one address.")
    throttle_registrations_per_minute: int = Field(120, ge=1, description="Registrations tried from one address.")

    # The edge of the network
    cors_origins: CommaSeparated = Field([], description="Single-page apps: https://app.example,https://…")
    trusted_proxies: CommaSeparated = Field([], description="Addresses or networks whose X-Forwarded-For is believed.")
    workers: int = Field(1, ge=1, description="Processes; `serve --workers` sets it.")

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            parts = urlsplit(origin)
            written = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme not in ("http", "https") or not parts.hostname or origin != written:
                raise ValueError("each origin is written as scheme://host[:port], nothing after it, never *")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: list[str]) -> list[str]:
        for proxy in proxies:
            ipaddress.ip_network(proxy)
        return proxies

    @field_validator("brand_logo")
    @classmethod
    def _check_logo(cls, logo: Path | None) -> Path | None:
        if logo is not None and logo.suffix.lower() not in PICTURES:
            raise ValueError(f"must be a file of one of the kinds {', '.join(PICTURES)}")
        return logo

    @field_validator("issuer")
    @classmethod
    def _check_issuer(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        if not is_address or parts.query or parts.fragment:
            raise ValueError("must be an http(s) URL without user, query and fragment (RFC 8414 §2)")
        return issuer.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("sqlite+aiosqlite://", "postgresql+asyncpg://")):
            raise ValueError("must begin with sqlite+aiosqlite:// or postgresql+asyncpg://")
        return url

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            redis_url.parse(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _refuse_in_production(self) -> Self:
        if self.environment == "production":
            secret = self.secret_key.get_secret_value()
            if secret == DEVELOPMENT_SECRET_KEY or len(secret) < 32:
                raise ValueError("production needs a SECRET_KEY of its own, 32 characters or more")
            if urlsplit(self.issuer).scheme == "http" and not is_loopback(urlsplit(self.issuer).hostname or ""):
                raise ValueError("production needs an https ISSUER (http is for loopback only)")
            if self.debug:
                raise ValueError("production does not run with DEBUG")
        return self

    @model_validator(mode="after")
    def _check_client_registration(self) -> Self:
        is_asked_for = self.client_registration == "initial_access_token"
        if is_asked_for and len(self.client_registration_token.get_secret_value()) < 32:
            raise ValueError(
                "CLIENT_REGISTRATION=initial_access_token needs a CLIENT_REGISTRATION_TOKEN of 32 characters"
            )
        return self

    @property
    def is_development(self) -> bool:
        """Tell whether conveniences for developers are on."""
        return self.environment == "development"

    @property
    def base_path(self) -> str:
        """What our paths begin with in a browser, where a proxy serves us below its root."""
        return urlsplit(self.issuer).path

    @property
    def serves_docs(self) -> bool:
        """Tell whether /docs and /openapi.json are served."""
        return self.is_development if self.docs_enabled is None else self.docs_enabled


def load(**changes: Any) -> Settings:
    """Read the settings; SettingsError names each fault, unknown `AUTHSERVER_…` names included."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    ours = {name.upper() for name in (*os.environ, *dotenv_values(".env")) if name.upper().startswith(_PREFIX)}
    unknown = sorted(name for name in ours - known if not name.startswith(_PREFIX + "TEST_"))
    if unknown:
        raise SettingsError("unknown setting: " + ", ".join(unknown))
    if _SECRETS_DIR.is_dir():
        changes = {"_secrets_dir": _SECRETS_DIR, **changes}
    try:
        return Settings(**changes)
    except ValidationError as invalid:
        raise SettingsError("; ".join(_one_line(error) for error in invalid.errors(include_input=False))) from None


def _one_line(error: Any) -> str:
    where = "".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{_PREFIX}{where.upper()}: {message}" if where else message


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
