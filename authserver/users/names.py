"""Which usernames and e-mail addresses there can be."""

import unicodedata
from dataclasses import dataclass

from authserver import text
from authserver.errors import Fault

_MIN_USERNAME, _MAX_USERNAME = 3, 50
_MAX_KEY = 255


@dataclass(frozen=True)
class Name:
    """A username or an e-mail address as it is shown, and the key under which all its spellings meet."""

    shown: str
    key: str


def username(submitted: str) -> Name | Fault:
    """Return the username; 3 to 50 letters, digits, dots, hyphens and underscores of any script, no @."""
    shown = text.normalise(submitted) if text.is_clean(submitted) else ""
    kinds = [unicodedata.category(character)[0] for character in shown]
    is_word = [kind in "LMN" for kind in kinds]
    if (
        not _MIN_USERNAME <= len(shown) <= _MAX_USERNAME
        or not all(fits or character in "._-" for fits, character in zip(is_word, shown, strict=True))
        or kinds[0] == "M"  # nothing to put the mark on
        or not (is_word[0] and is_word[-1])
    ):
        return Fault(
            "/username",
            f"Use {_MIN_USERNAME} to {_MAX_USERNAME} letters and digits, with . _ or - between them.",
            "username",
            {"minimum": _MIN_USERNAME, "maximum": _MAX_USERNAME},
        )
    return Name(shown, text.fold(shown))


def email(submitted: str) -> Name | Fault:
    """Return the e-mail address, its domain in lower case (RFC 5321, RFC 6531); nothing is sent to it or looked up."""
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 - 20 ms that a start need not take

    fault = Fault("/email", "Give an e-mail address, like ada@example.com.", "email")
    if not text.is_clean(submitted):
        return fault
    try:
        # test_environment: the reserved names under .test are allowed, as they are in everybody's tests.
        shown = validate_email(submitted, check_deliverability=False, strict=True, test_environment=True).normalized
    except EmailNotValidError:
        return fault
    key = text.fold(shown)
    return (
        fault
        if len(shown) > _MAX_KEY or len(key) > _MAX_KEY or "." not in shown.rpartition("@")[2]
        else Name(shown, key)
    )
