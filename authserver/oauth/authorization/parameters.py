"""The parameters of an authorization request, as they came (RFC 6749 §3.1)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, urlencode

from authserver.errors import ShownToPerson
from authserver.oauth.authorization.refusals import invalid_request
from authserver.oauth.errors import Refusal
from authserver.oauth.request import MAX_FIELDS, MAY_REPEAT
from authserver.text import is_clean

MAX_BYTES = 8 * 1024
"""Quoted inside the address of the sign-in page, it must still fit into what servers and proxies take."""
TICKET, REFUSED, CHOSEN = "ticket", "refused", "chosen"
"""What our own pages add (ticket.py)."""
_OURS = frozenset({TICKET, REFUSED, CHOSEN})
Pair = tuple[str, str]


@dataclass(frozen=True)
class Parameters:
    """Names and values in the order in which they came."""

    pairs: tuple[Pair, ...]
    ticket: str | None = None
    refused: str | None = None
    chosen: str | None = None

    @cached_property
    def values(self) -> dict[str, str]:
        """Those that are there once, or may be repeated (then joined by spaces); empty and unclean ones left out."""
        found: dict[str, str] = {}
        for name, value in self.pairs:
            if value and name not in self.broken:
                found[name] = f"{found[name]} {value}" if name in found else value
        return found

    @cached_property
    def broken(self) -> frozenset[str]:
        """The names of those that are repeated, or have characters that no parameter has."""
        seen: set[str] = set()
        found: set[str] = set()
        for name, value in self.pairs:
            if not (is_clean(name) and is_clean(value)) or (name in seen and name not in MAY_REPEAT):
                found.add(name)
            seen.add(name)
        return frozenset(found)

    @property
    def fault(self) -> Refusal | None:
        """Return why they are refused as they are."""
        return invalid_request("A parameter is repeated, or not well-formed.") if self.broken else None

    def query(self, *more: Pair) -> str:
        """Return them as the query of an address."""
        return urlencode([*self.pairs, *more])


def read(query: bytes) -> Parameters:
    """Return the parameters of a query string or form; ShownToPerson if it is none, or too long."""
    if len(query) > MAX_BYTES:
        raise ShownToPerson("malformed_request", f"more than {MAX_BYTES} bytes")
    try:
        pairs = parse_qsl(
            query.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, encoding="utf-8", errors="strict"
        )
    except ValueError:  # not UTF-8, or too many fields
        raise ShownToPerson("malformed_request", "not a query string") from None
    ours = {name: value for name, value in pairs if name in _OURS}
    return Parameters(_others(pairs), ours.get(TICKET), ours.get(REFUSED), ours.get(CHOSEN))


def _others(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(pair for pair in pairs if pair[0] not in _OURS)
