"""What was asked, of which node, when, and what was answered: all that the checker knows.

Times are the laboratory's own monotonic seconds: no clock that a fault may turn has a say in the verdict.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class What(StrEnum):
    """What was asked for."""

    REGISTER = "register"
    SIGN_IN = "sign in"
    REFRESH = "refresh"
    INTROSPECT = "introspect"
    INTROSPECT_REFRESH = "introspect a refresh token"
    USERINFO = "userinfo"
    ME = "users/me"
    REVOKE_ACCESS = "revoke an access token"
    REVOKE_REFRESH = "revoke a refresh token"
    CHANGE_PASSWORD = "change the password"
    SIGN_OUT = "sign out"
    SIGN_OUT_EVERYWHERE = "sign out everywhere"
    DELETE_ACCOUNT = "delete the account"


class Outcome(StrEnum):
    """What the answer comes to."""

    YES = "yes"
    """Done, or the token is good."""
    NO = "no"
    """Refused, or the token is not good."""
    UNAVAILABLE = "503"
    """It may have happened or not."""
    SILENCE = "no answer"
    """The connection broke, or the patience did: it may have happened or not."""
    STRANGE = "strange"
    """No answer that the matrix of docs/operations.md knows."""


@dataclass(frozen=True)
class Event:
    """One request and its answer. Fields that make no sense for what was asked are empty."""

    what: What
    node: str
    started: float
    ended: float
    outcome: Outcome
    said: str = ""
    """The error code of a refusal; for a strange answer all of it."""
    user: str = ""
    password: str = ""
    """The one that was given."""
    new_password: str = ""
    token: str = ""
    """The one in question, or the one that was shown: the jti of an access token, or a refresh token itself."""
    session: str = ""
    """Of `token`; of a sign-in the one that began."""
    new_access: str = ""
    new_refresh: str = ""

    @property
    def seconds(self) -> float:
        """How long the answer took."""
        return self.ended - self.started

    @property
    def may_have_happened(self) -> bool:
        """Tell whether the store may hold its effect; a strange answer excludes nothing."""
        return self.outcome is not Outcome.NO

    def __str__(self) -> str:
        about = " ".join(part for part in (self.user, self.session[:8], self.token[-8:], self.said) if part)
        return f"{self.what} on {self.node} at {self.started:.3f}–{self.ended:.3f}: {self.outcome} ({about})"


@dataclass(frozen=True)
class Period:
    """From when to when, in the laboratory's seconds."""

    began: float
    over: float

    def touches(self, event: Event) -> bool:
        """Tell whether a request was under way in it."""
        return event.started <= self.over and event.ended >= self.began


@dataclass(frozen=True)
class Terms:
    """What the checker must know besides the history: a setting, and what the fault excuses."""

    retry_seconds: float = 10.0
    """A just-used refresh token gets its successor again for so long."""
    without_database: dict[str, Period] = field(default_factory=dict)
    """By node: when a 503 is the right answer, because the primary could not be reached."""
    locked_out: dict[str, Period] = field(default_factory=dict)
    """By node: when a row may have been locked by a node that could not let go: a 503 after a wait is right."""
    stopped: dict[str, Period] = field(default_factory=dict)
    """By node: when the server itself could not answer."""
    do_clocks_agree: bool = True
    """The nodes' dates are as close as docs/operations.md asks for. Else expiry and windows are not judged."""
    lag_seconds: float = 0.0
    """How late the laboratory itself has been at worst: so much of a duration may be its own."""
