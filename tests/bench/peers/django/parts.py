"""What the settings name: how is hashed, and what userinfo says."""

from typing import Any

from django.contrib.auth.hashers import Argon2PasswordHasher, PBKDF2PasswordHasher
from oauth2_provider.oauth2_validators import OAuth2Validator


class Argon2(Argon2PasswordHasher):  # type: ignore[misc]
    """Passwords: the parameters that authserver has."""

    time_cost = 2
    memory_cost = 19_456
    parallelism = 1


class QuickHash(PBKDF2PasswordHasher):  # type: ignore[misc]
    """Secrets of clients, which are random and long: one round, as it would otherwise hash a password a request."""

    algorithm = "quick"
    iterations = 1


class Validator(OAuth2Validator):  # type: ignore[misc]
    """Knows the claims of the scopes `profile` and `email`."""

    def get_additional_claims(self, request: Any) -> dict[str, str]:
        """Return what userinfo and ID tokens say of a user besides `sub`, before the scope narrows it down."""
        return {"preferred_username": request.user.get_username(), "email": request.user.email}
