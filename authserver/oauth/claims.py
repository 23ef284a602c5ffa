"""What may be said about a user, and what opens it: a scope, or its name (OpenID Connect Core §5.1, §5.4, §5.5)."""

from collections.abc import Callable, Iterable, Mapping

from authserver.users.models import User

BY_SCOPE: Mapping[str, tuple[str, ...]] = {
    "profile": ("preferred_username", "updated_at"),
    "email": ("email", "email_verified"),
}
_SAID: Mapping[str, Callable[[User], object]] = {
    "preferred_username": lambda user: user.username,
    "updated_at": lambda user: int(user.updated_at.timestamp()),
    "email": lambda user: user.email,
    "email_verified": lambda _: False,  # nothing verifies addresses yet
}
NAMES = tuple(_SAID)


def about(user: User, scopes: Iterable[str] = (), named: Iterable[str] = ()) -> dict[str, object]:
    """Return the claims about a user that scopes and names open; other names say nothing here (§5.5.1)."""
    opened = {name for scope in scopes for name in BY_SCOPE.get(scope, ())} | set(named)
    return {name: say(user) for name, say in _SAID.items() if name in opened}
