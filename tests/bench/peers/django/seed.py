"""Fills the database.

python seed.py prepare           makes the tables, the clients and the users, from the JSON document on stdin
python seed.py KIND COUNT        prints so many tokens; KIND: access, refresh, openid (a refresh brings an ID token)
"""

import json
import os
import sys
from datetime import timedelta

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

from django.contrib.auth.hashers import make_password  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402
from oauthlib.common import generate_token  # noqa: E402

_LIFE = timedelta(hours=1)


def prepare() -> None:
    """Make the tables, a client for each of the grants (they can have but one), and the users."""
    call_command("migrate", verbosity=0)
    given = json.load(sys.stdin)
    for grant, (name, secret) in given["clients"].items():
        Application.objects.create(
            client_id=name, client_secret=secret, client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=grant, algorithm=Application.RS256_ALGORITHM,
        )  # fmt: skip
    hashed = make_password(given["password"])
    User.objects.bulk_create(
        User(username=name, email=f"{name}@example.com", password=hashed) for name in given["users"]
    )


def tokens(kind: str, count: int) -> list[str]:
    """Make access tokens, or refresh tokens with the access tokens that they came with."""
    users = list(User.objects.all())
    client = Application.objects.get(authorization_grant_type=Application.GRANT_PASSWORD)
    scope, expires = "profile email" if kind == "refresh" else "openid profile email", timezone.now() + _LIFE
    made = AccessToken.objects.bulk_create(
        AccessToken(user=users[number % len(users)], application=client, token=generate_token(), scope=scope,
                    expires=expires)
        for number in range(count)
    )  # fmt: skip
    if kind != "access":
        made = RefreshToken.objects.bulk_create(
            RefreshToken(user=access.user, application=client, token=generate_token(), access_token=access)
            for access in made
        )
    return [each.token for each in made]


if sys.argv[1] == "prepare":
    prepare()
else:
    json.dump(tokens(sys.argv[1], int(sys.argv[2])), sys.stdout)
