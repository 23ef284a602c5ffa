"""What can go wrong, in the domain's words; the edges translate it to the wire.

AuthserverError
├── StoreUnavailable        a database or Redis that must be asked cannot be: 503, never a guess
├── Busy                    the password-hashing queue is full: 503
├── TooManyAttempts         throttled: 429
├── ShownToPerson           what must not go to a client: a page for the person at the browser, 400
└── Problem                 an answer of the JSON endpoints, RFC 9457 (one subclass a `type`)
    ├── InvalidInput        422, with `errors: [{pointer, detail}]`
    ├── BadRequest          400
    │   └── WrongPassword
    ├── Unauthenticated     401, with WWW-Authenticate (RFC 6750 §3)
    ├── Forbidden           403
    ├── NotFound            404
    ├── MethodNotAllowed    405
    ├── Conflict            409
    │   ├── UsernameTaken
    │   └── EmailTaken
    ├── ContentTooLarge     413
    └── UnsupportedMediaType 415
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


class AuthserverError(Exception):
    """The root of everything that this server raises on purpose."""


class StoreUnavailable(AuthserverError):
    """A store that decides the answer cannot be asked, or what it did is unknown (docs/reliability.md)."""

    def __init__(self, store: str, reason: str, retry_after: int = 1) -> None:
        super().__init__(f"{store}: {reason}")
        self.store = store
        self.reason = reason
        self.retry_after = retry_after
        """Seconds."""


class Busy(AuthserverError):
    """More work waits than can be done in time; try again after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: int = 1) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TooManyAttempts(AuthserverError):
    """Throttled: nothing was checked; try again after `retry_after` seconds."""

    def __init__(self, what: str, retry_after: int) -> None:
        super().__init__(what)
        self.what = what
        self.retry_after = max(1, retry_after)


class ShownToPerson(AuthserverError):
    """An authorization request that nobody may be sent back with: no client or redirect URI that could be trusted.

    `error` is a code that the pages have a sentence for; `reason` is for the log.
    """

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the input: where (a JSON pointer, RFC 6901) and why, in a sentence."""

    pointer: str
    detail: str
    code: str = ""
    """What the pages have a sentence for in each language (pages/languages, `wrong`)."""
    values: Mapping[str, int] = field(default_factory=dict)
    """The numbers in it."""


class Problem(AuthserverError):
    """An answer of a JSON endpoint in the form of RFC 9457; docs/errors.md has a heading for each slug."""

    status = 500
    slug = "internal-error"
    title = "Internal error"

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}


class InvalidInput(Problem):
    """The JSON was understood, its values are not acceptable; never echoes them."""

    status, slug, title = 422, "invalid-input", "The input is not acceptable"

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("See `errors` for what to change.")
        self.faults = faults


class BadRequest(Problem):
    """The request cannot be read at all."""

    status, slug, title = 400, "bad-request", "The request cannot be read"


class WrongPassword(BadRequest):
    """The current password, asked for again before a change, is not right."""

    slug, title = "wrong-password", "The current password is not right"


class Unauthenticated(Problem):
    """No access token, or one that is not good (any more)."""

    status, slug, title = 401, "unauthenticated", "A valid access token is needed"


class Forbidden(Problem):
    """Who asks is known, and may not."""

    status, slug, title = 403, "forbidden", "Not allowed"


class NotFound(Problem):
    """Nothing here, or nothing that the caller may see."""

    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(Problem):
    """The address exists, for other methods (see the Allow header)."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class Conflict(Problem):
    """The state of the server speaks against it."""

    status, slug, title = 409, "conflict", "Conflict"


class UsernameTaken(Conflict):
    """Somebody has that username, in this or another spelling that folds to the same."""

    slug, title = "username-taken", "The username is taken"


class EmailTaken(Conflict):
    """An account with that e-mail address exists."""

    slug, title = "email-taken", "The e-mail address is taken"


class ContentTooLarge(Problem):
    """The body is larger than this endpoint reads."""

    status, slug, title = 413, "content-too-large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The body is not of the media type that this endpoint reads."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"
