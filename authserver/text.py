"""Which characters may come in, and when two spellings are the same one."""

import re
import unicodedata

# UNICODECHARNOCRLF of RFC 6749, appendix A: what a username, password or any other parameter is made of.
# Lone surrogates are no characters, U+0000 cannot be stored, CR and LF would forge log lines.
_NOT_A_PARAMETER = re.compile("[^\t -~\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_clean(value: str) -> bool:
    """Tell whether `value` is made only of the characters of RFC 6749, appendix A."""
    return _NOT_A_PARAMETER.search(value) is None


def normalise(value: str) -> str:
    """Return the one form (NFKC) in which a text is stored or hashed (NIST SP 800-63B-4 §3.1.1.2)."""
    return unicodedata.normalize("NFKC", value)


def fold(value: str) -> str:
    """Return the key under which all spellings of a username or e-mail address meet (Unicode §3.13, NFKC_Casefold)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
