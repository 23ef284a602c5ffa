"""What the pages say: one file of texts for each language, chosen by `ui_locales`, then by what the browser prefers."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from authserver.settings import SettingsError

OURS = Path(__file__).parent / "languages"
FALLBACK = "en"


@dataclass(frozen=True)
class Language:
    """The texts of one language, each under `page.name`."""

    code: str
    """BCP 47, such as `en` or `pt-BR`."""
    texts: Mapping[str, str]

    def say(self, key: str, **values: Any) -> str:
        """Return a text with its `{…}` filled in."""
        return self.texts[key].format(**values)

    def knows(self, key: str) -> bool:
        """Tell whether there is such a text."""
        return key in self.texts


def load(*folders: Path) -> dict[str, Language]:
    """Return the languages by their codes in lower case; SettingsError for a file that is none.

    A later folder's texts replace an earlier one's; what a language does not have is said in English.
    """
    texts: dict[str, dict[str, str]] = {}
    for file in [file for folder in folders for file in sorted(folder.glob("*.toml"))]:
        texts.setdefault(file.stem, {}).update(texts_of(file))
    return {code.lower(): Language(code, {**texts[FALLBACK], **own}) for code, own in texts.items()}


def texts_of(file: Path) -> dict[str, str]:
    """Return the texts of a file; SettingsError if it is not TOML, or a text has braces that are no value."""
    try:
        tables = tomllib.loads(file.read_bytes().decode())
        texts = {f"{table}.{name}": text for table, own in tables.items() for name, text in own.items()}
        for text in texts.values():
            list(Formatter().parse(text))
    except (ValueError, AttributeError, TypeError) as fault:
        raise SettingsError(f"AUTHSERVER_PAGES_TEMPLATES: {file.name}: {fault}") from None
    return texts


def choose(languages: Mapping[str, Language], ui_locales: str, accept_language: str) -> Language:
    """Return the first language that is wanted and there; `de-AT` is content with `de` (RFC 4647 §3.4)."""
    for wanted in [*ui_locales.lower().split(), *_by_preference(accept_language.lower())]:
        subtags = wanted.split("-")
        for length in range(len(subtags), 0, -1):
            if found := languages.get("-".join(subtags[:length])):
                return found
    return languages[FALLBACK]


def _by_preference(header: str) -> list[str]:
    """Return the language ranges of Accept-Language, the most wanted first (RFC 9110 §12.5.4)."""
    ranges = []
    for part in header.split(","):
        tag, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if tag.strip() and quality > 0:
            ranges.append((-quality, tag.strip()))
    return [tag for _, tag in sorted(ranges, key=lambda item: item[0])]
