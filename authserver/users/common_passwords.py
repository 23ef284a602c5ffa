"""The bundled list of common and leaked passwords, for NIST SP 800-63B-4 §3.1.1.2 without asking anybody outside.

Where the list comes from: common_passwords.LICENSE.txt.
"""

import gzip
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_suffix(".txt.gz")


def contains(folded: str) -> bool:
    """Tell whether a folded password is on the list."""
    wanted = folded.encode("utf-8", "surrogatepass")
    return wanted != b"" and _last_up_to(wanted) == wanted


def length_of_word_at_start(folded: str) -> int:
    """Return how many characters the longest listed password has that the text begins with; 0 for none."""
    wanted = folded.encode("utf-8", "surrogatepass")
    while wanted:
        word = _last_up_to(wanted)
        if not word or wanted.startswith(word):
            return len(word.decode())
        # A word that `wanted` begins with sorts between this one and `wanted`, so it begins both.
        wanted = wanted[: next(i for i in range(len(wanted)) if word[i : i + 1] != wanted[i : i + 1])]
    return 0


def _last_up_to(wanted: bytes) -> bytes:
    """Return the last word that does not sort after `wanted`; empty for none."""
    words = _words()
    low, high = 0, len(words)  # where lines begin
    while low < high:
        begin = words.rfind(b"\n", low, (low + high) // 2) + 1 or low
        end = words.index(b"\n", begin)
        if words[begin:end] <= wanted:
            low = end + 1
        else:
            high = begin
    return words[words.rfind(b"\n", 0, low - 1) + 1 : low - 1] if low else b""


@cache
def _words() -> bytes:
    """All words as one text of 2 MiB, sorted: a set of them would take ten times as much."""
    return gzip.decompress(_FILE.read_bytes())
