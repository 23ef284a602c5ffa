"""How the pages look: templates, languages, style sheet, logo and colour, all read once when the server starts.

Our own templates are compiled when they are needed, since that takes longer than all the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError
from starlette.requests import HTTPConnection

from authserver.pages import colours, language
from authserver.settings import PICTURES, Settings, SettingsError

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "templates"
MEDIA_TYPES = {".css": "text/css; charset=utf-8", **PICTURES}


@dataclass(frozen=True)
class Asset:
    """A file that the pages refer to. Its name changes with its content, so that browsers may keep it for ever."""

    name: str
    content: bytes
    media_type: str


class Look:
    """What a page is made with; SettingsError when an operator's own files cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        own = [settings.pages_templates] if settings.pages_templates else []
        self.languages = language.load(language.OURS, *own)
        self._assets: dict[str, Asset] = {}
        self._names: dict[str, str] = {}
        self._add("brand.css", colours.style(settings.brand_color).encode())
        for file in [file for folder in (_HERE / "assets", *own) for file in sorted(folder.iterdir())]:
            if file.suffix.lower() in MEDIA_TYPES:
                self._add(file.name, file.read_bytes())
        owns = FileSystemLoader(own)
        ours = DictLoader({file.name: file.read_text(encoding="utf-8") for file in _TEMPLATES.iterdir()})
        self.templates = Environment(
            loader=ChoiceLoader([owns, ours]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.globals.update(
            path=self.path,
            asset=self.address,
            logo=self._logo(),
            product=settings.product_name,
            registration_enabled=settings.registration_enabled,
        )
        self._compile(name for name in owns.list_templates() if name.endswith(".html"))

    def path(self, path: str) -> str:
        """Return what a link to a path of ours says."""
        return self.settings.base_path + path

    def address(self, file: str) -> str:
        """Return where a file of the pages is found."""
        return self.path(f"/assets/{self._names[file]}")

    def asset(self, name: str) -> Asset | None:
        """Return the file at an address."""
        return self._assets.get(name)

    def _compile(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self.templates.get_template(name)
            except TemplateSyntaxError as fault:
                raise SettingsError(f"AUTHSERVER_PAGES_TEMPLATES: {name}, line {fault.lineno}: {fault}") from None

    def _logo(self) -> str | None:
        logo = self.settings.brand_logo
        if logo is None:
            return None
        self._add(f"logo{logo.suffix.lower()}", logo.read_bytes())
        return self.address(f"logo{logo.suffix.lower()}")

    def _add(self, file: str, content: bytes) -> None:
        stem, suffix = Path(file).stem, Path(file).suffix.lower()
        name = f"{stem}.{sha256(content).hexdigest()[:12]}{suffix}"
        self._names[file] = name
        self._assets[name] = Asset(name, content, MEDIA_TYPES[suffix])


def of(connection: HTTPConnection) -> Look:
    """Return the look of the application that a request came to."""
    return cast("Look", connection.app.state.look)
