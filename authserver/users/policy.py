"""Which passwords are refused (NIST SP 800-63B-4 §3.1.1.2): length and guessability, no rules on composition."""

from authserver import text
from authserver.errors import Fault
from authserver.settings import Settings
from authserver.users import common_passwords

_LONGEST_UNIT = 8
"""A text of so many characters gains nothing by being repeated."""
_SHORTEST_RUN = 3
_LONG = 64
"""Nobody guesses texts of so many characters, however simple, before shorter ones have run out."""

# Along the rows and up and down the columns of keyboards, hand over hand; read backwards too.
_KEYBOARD_RUNS = (
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "`1234567890-=",
    "!@#$%^&*()_+",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "qawsedrftgyhujikolp",
    "azsxdcfvgbhnjmk,l.",
    "йцукенгшщзхъфывапролджэячсмитьбю",
)
_RUNS = "\n".join(run + "\n" + run[::-1] for run in _KEYBOARD_RUNS)


def faults(password: str, settings: Settings, *, username: str, email: str, pointer: str = "/password") -> list[Fault]:
    """Return what speaks against a password, in sentences for its owner; none when it is acceptable."""

    def fault(code: str, detail: str, **values: int) -> Fault:
        return Fault(pointer, detail, f"password_{code}", values)

    minimum, maximum = settings.password_min_length, settings.password_max_length
    if not text.is_clean(password):
        sentence = "Leave out line breaks, control characters and anything that is not a Unicode character."
        return [fault("characters", sentence)]
    password = text.normalise(password)
    if len(password) > maximum:
        return [fault("long", f"Use at most {maximum} characters.", maximum=maximum)]
    if len(password) < minimum:
        sentence = f"Use at least {minimum} characters; a few words that you will remember are fine."
        return [fault("short", sentence, minimum=minimum)]
    folded = text.fold(password)
    found = []
    if common_passwords.contains(folded):
        sentence = "This password is on a list of common and leaked ones; choose one that only you would think of."
        found.append(fault("common", sentence))
    elif len(folded) < _LONG and (_repeats_itself(folded) or not _is_varied(folded, (minimum + 1) // 2)):
        sentence = "This is mostly repeated or neighbouring characters and common passwords; add unrelated words."
        found.append(fault("simple", sentence))
    for name, code, what in _names(settings, username, email):
        if name in folded:
            found.append(fault(code, f"Leave {what} out of the password."))
            break
    return found


def _names(settings: Settings, username: str, email: str) -> list[tuple[str, str, str]]:
    """Return the folded words that a guesser would try first for this account, and what to call them."""
    local_part = email.rpartition("@")[0]
    candidates = [
        (username, "has_username", "your username", 3),
        (local_part, "has_email", "your e-mail address", 4),
        (settings.product_name, "has_product", "the name of this service", 4),
    ]
    return [(text.fold(name), code, what) for name, code, what, shortest in candidates if len(name) >= shortest]


def _repeats_itself(folded: str) -> bool:
    """Tell whether it is one short text over and over, whatever digits or signs are put after it."""
    without_tail = folded.rstrip("0123456789!?.,;:-_*+#$%&@ ")
    return any(
        len(whole) >= 2 * unit and whole[unit:] == whole[:-unit]
        for whole in (folded, without_tail)
        for unit in range(1, _LONGEST_UNIT + 1)
    )


def _is_varied(folded: str, wanted: int) -> bool:
    """Tell whether it takes `wanted` choices to write it: a common password or a run is two, however long."""
    choices = position = 0
    while position < len(folded) and choices < wanted:
        rest = folded[position:]
        piece = max(common_passwords.length_of_word_at_start(rest), _run_at_start(rest))
        choices += 2 if piece else 1
        position += piece or 1
    return choices >= wanted


def _run_at_start(rest: str) -> int:
    """Return how many characters are the same, neighbours in their alphabet or on a keyboard; 0 if it is no run."""
    length = 1
    if len(rest) > 1 and (step := ord(rest[1]) - ord(rest[0])) in {-1, 0, 1}:
        while length < len(rest) and ord(rest[length]) - ord(rest[length - 1]) == step:
            length += 1
    while length < len(rest) and rest[: length + 1] in _RUNS:
        length += 1
    return length if length >= _SHORTEST_RUN else 0
