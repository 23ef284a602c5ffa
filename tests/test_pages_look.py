"""Languages, colours, logo, templates and files of the pages."""

import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver.pages import colours, language, user_agent
from authserver.pages.look import Look
from authserver.settings import Settings, SettingsError
from tests.pages import shown

OURS = sorted(language.OURS.glob("*.toml"))


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_every_language_says_everything_with_the_same_values(file: Path) -> None:
    english = language.texts_of(language.OURS / "en.toml")
    texts = language.texts_of(file)
    assert texts.keys() == english.keys()
    for key, text in texts.items():
        assert names_in(text) == names_in(english[key]), key
        assert text.strip() == text != ""


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_text_is_said_somewhere() -> None:
    package = language.OURS.parent
    sources = "".join(file.read_text() for file in [*package.rglob("*.html"), *package.rglob("*.py")])
    computed = ("fault.", "error.", "wrong.", "scope.", "done.")
    for key in language.texts_of(language.OURS / "en.toml"):
        assert key.startswith(computed) or f'"{key}"' in sources, key


@pytest.mark.parametrize(
    ("ui_locales", "accept", "expected"),
    [
        ("", "", "en"),
        ("", "de", "de"),
        ("", "de-AT,en;q=0.5", "de"),
        ("", "fr, de;q=0.2, en;q=0.1", "de"),
        ("", "en;q=0.1, de;q=0.2", "de"),
        ("", "de;q=0, en;q=0.1", "en"),
        ("", "fr", "en"),
        ("de", "en", "de"),
        ("fr-CA DE-ch", "en", "de"),
        ("fr", "de", "de"),
        ("\0 ' -- ../../etc", "*;q=x,,;;", "en"),
        ("", "de;q=nan", "en"),
    ],
)
async def test_the_language_is_the_one_that_is_asked_for_or_preferred(
    client: httpx.AsyncClient, ui_locales: str, accept: str, expected: str
) -> None:
    page = await client.get("/login", params={"ui_locales": ui_locales}, headers={"Accept-Language": accept})
    assert f'<html lang="{expected}">' in page.text
    assert ("Passwort" in page.text) == (expected == "de")


async def test_every_file_of_a_page_is_ours_and_may_be_kept_for_ever(client: httpx.AsyncClient) -> None:
    page = await client.get("/login")
    addresses = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', page.text))
    assert len(addresses) == 3
    for address in addresses:
        answer = await client.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].split(";")[0] in {"text/css", "image/svg+xml"}
    icon = await client.get("/favicon.ico", follow_redirects=True)
    assert icon.headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("name", ["style.css", "..%2flook.py", "%2e%2e/look.py", "style.000000000000.css"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/assets/{name}")).status_code == 404


@pytest.mark.parametrize("accent", ["#3457d5", "#ffffff", "#000000", "#ffee00", "#777777", "#00b894", "#ff5a5f"])
def test_text_is_readable_whatever_the_accent(accent: str) -> None:
    style = colours.style(accent)
    value = dict(re.findall(r"--(accent|accent-hover|accent-text): (#[0-9a-f]{6})", style))
    assert colours.contrast(value["accent-text"], value["accent"]) >= 4.5
    assert colours.contrast(value["accent-text"], value["accent-hover"]) >= 4.5
    light, dark = re.findall(r"--link: (#[0-9a-f]{6})", style)
    for surface in ("#f4f5f7", "#ffffff"):
        assert colours.contrast(light, surface) >= 4.5
    for surface in ("#14161a", "#1d2026"):
        assert colours.contrast(dark, surface) >= 4.5


async def test_name_logo_and_colour_are_settings(client_with: Callable[..., Any], tmp_path: Path) -> None:
    logo = tmp_path / "harbour.SVG"
    logo.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    browser = await client_with(product_name="Harbour & Sons", brand_logo=logo, brand_color="#FFEE00")
    page = await browser.get("/login")
    assert "<title>Sign in · Harbour &amp; Sons</title>" in page.text
    found = re.search(r'<img src="(/assets/logo\.[0-9a-f]{12}\.svg)" alt="Harbour &amp; Sons">', page.text)
    assert found
    picture = await browser.get(found[1])
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "default-src 'none'" in picture.headers["content-security-policy"]  # opened by itself it runs nothing
    brand = re.search(r'href="(/assets/brand\.[^"]+)"', page.text)
    assert brand
    assert "--accent: #FFEE00" in (await browser.get(brand[1])).text


async def test_any_template_text_and_style_can_be_replaced_from_a_folder(
    client_with: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "signed_out.html").write_text(
        '{% extends "base.html" %}{% block main %}Bye, {{ product }}!{% endblock %}'
    )
    (tmp_path / "style.css").write_text("body { color: teal }")
    (tmp_path / "en.toml").write_text('[login]\ntitle = "Come aboard"\n')
    (tmp_path / "fr.toml").write_text('[login]\ntitle = "Se connecter"\n')
    browser = await client_with(pages_templates=tmp_path)
    assert "Bye, authserver!" in shown(await browser.get("/logout"))
    page = await browser.get("/login")
    assert "Come aboard" in shown(page)
    style = re.search(r'href="(/assets/style\.[^"]+)"', page.text)
    assert style
    assert "teal" in (await browser.get(style[1])).text
    french = await browser.get("/login", headers={"Accept-Language": "fr"})
    assert '<html lang="fr">' in french.text
    assert "Se connecter" in shown(french)
    assert "Password" in shown(french)  # what it does not say is said in English


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"brand_color": "blue"}, "brand_color"),
        ({"brand_color": "#fff"}, "brand_color"),
        ({"brand_color": "#34567x"}, "brand_color"),
        ({"brand_logo": "nowhere.svg"}, "brand_logo"),
        ({"brand_logo": __file__}, "one of the kinds"),
        ({"pages_templates": "nowhere"}, "pages_templates"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Settings(_env_file=None, **changes)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("login.html", "{% if %}"),
        ("fr.toml", "not toml"),
        ("fr.toml", '[login]\ntitle = "{unknown"'),
        ("fr.toml", "a = 1"),
    ],
)
def test_an_operators_broken_file_is_named_at_the_start(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(SettingsError, match=file):
        Look(Settings(_env_file=None, pages_templates=tmp_path))


@pytest.mark.parametrize(
    ("agent", "browser", "system"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox", "Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge", "Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/18.0 Safari/605.1", "Safari", "macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1", "Safari", "iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome", "Android"),
        ("python-httpx/0.28", "python-httpx", ""),
        ("<script>" * 50, "<script>" * 5, ""),
        ("", "", ""),
        (None, "", ""),
    ],
)
def test_a_browser_is_named_as_people_know_it(agent: str | None, browser: str, system: str) -> None:
    assert user_agent.described(agent) == (browser, system)
