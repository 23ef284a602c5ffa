"""Settings of a Django project that is a token server and nothing else; `bench.json` beside it says what changes."""

import json
from pathlib import Path

_GIVEN = json.loads(Path(__file__).with_name("bench.json").read_text())

SECRET_KEY = "a secret key of the benchmark, long enough for production"
DEBUG = False
ALLOWED_HOSTS = ["auth.example"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
MIDDLEWARE: list[str] = []
"""None of these operations needs any."""
ROOT_URLCONF = "urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": None, **_GIVEN["database"]}}
PASSWORD_HASHERS = ["parts.Argon2", "parts.QuickHash"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"oauth2_provider": {"level": "ERROR"}}}
"""It would complain of each password grant."""
OAUTH2_PROVIDER = {
    "OIDC_ENABLED": True,
    "OIDC_ISS_ENDPOINT": "https://auth.example/o",
    "OIDC_RSA_PRIVATE_KEY": _GIVEN["key"],
    "OAUTH2_VALIDATOR_CLASS": "parts.Validator",
    "SCOPES": {"openid": "OpenID Connect", "profile": "Name", "email": "E-mail address"},
    "DEFAULT_SCOPES": ["profile", "email"],
    "CLIENT_SECRET_HASHER": "quick",
    "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
    "ROTATE_REFRESH_TOKEN": True,
}
