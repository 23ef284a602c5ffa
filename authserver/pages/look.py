"""How the pages look: templates, languages, style sheet, logo and colour, all read once when the server starts."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from starlette.requests import HTTPConnection

from authserver.pages import colours, language
from authserver.settings import Settings

_HERE = Path(__file__).parent
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Asset:
    """A file that the pages refer to. Its name changes with its content, so that browsers may keep it for ever."""

    name: str
    content: bytes
    media_type: str


class Look:
    """What a page is made with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.languages = language.load(language.OURS)
        self._assets: dict[str, Asset] = {}
        self._names: dict[str, str] = {}
        for file in sorted((_HERE / "assets").iterdir()):
            self._add(file.name, file.read_bytes())
        self._add("brand.css", colours.style("#3457d5").encode())
        self.templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(_HERE / "templates")]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.globals.update(
            path=self.path,
            asset=self.address,
            logo=None,
            product=settings.product_name,
            registration_enabled=settings.registration_enabled,
        )

    def path(self, path: str) -> str:
        """Return what a link to a path of ours says."""
        return self.settings.base_path + path

    def address(self, file: str) -> str:
        """Return where a file of the pages is found."""
        return self.path(f"/assets/{self._names[file]}")

    def asset(self, name: str) -> Asset | None:
        """Return the file at an address."""
        return self._assets.get(name)

    def _add(self, file: str, content: bytes) -> None:
        stem, suffix = Path(file).stem, Path(file).suffix.lower()
        name = f"{stem}.{sha256(content).hexdigest()[:12]}{suffix}"
        self._names[file] = name
        self._assets[name] = Asset(name, content, MEDIA_TYPES[suffix])


def of(connection: HTTPConnection) -> Look:
    """Return the look of the application that a request came to."""
    return cast("Look", connection.app.state.look)
