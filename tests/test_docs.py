"""The documentation says what is so: settings, errors, tables, metrics, commands, links; the README's commands run."""

import asyncio
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
import typer
from fastapi import FastAPI
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from starlette.requests import Request
from starlette.routing import Route

from authserver import audit, db, errors, throttle
from authserver.app import create_app
from authserver.cli import program
from authserver.clients import models as clients
from authserver.keys import models as keys
from authserver.oauth import errors as oauth_errors
from authserver.oauth.authorization import refusals
from authserver.observability import metrics
from authserver.sessions import models as sessions
from authserver.settings import DEVELOPMENT_SECRET_KEY, Settings
from authserver.tokens import models as tokens
from authserver.users import models as users
from tests.application import Program, environment

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
DIAGRAMS = sorted(DOCS.glob("sequence_diagrams/*.puml"))
TABLES = (audit, clients, keys, sessions, throttle, tokens, users)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
ANYTHING = "…"
PERSON = (
    f'ANSWER=$(PYTHONPATH="{ROOT}" "{sys.executable}" -m tests.interop.person ada "$ADDRESS" http://127.0.0.1:3000/)'
)
"""What stands in for the reader, who opens an address in a browser and pastes where it ends."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
every_page_and_diagram = pytest.mark.parametrize("page", [*PAGES, *DIAGRAMS], ids=name_of)


# Settings


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value == DEVELOPMENT_SECRET_KEY:
        return "a fixed one, for development only"
    if value is None:
        return "unset"
    if value in ("", []):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _range(field: FieldInfo) -> str:
    if typing.get_origin(field.annotation) is typing.Literal:
        *others, last = (f"`{value}`" for value in typing.get_args(field.annotation))
        return f"{', '.join(others)} or {last}"
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            low = f"{bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            low = f"more than {bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            high = f"{bound.le}"
    if low.startswith("more"):
        return f"{low}, at most {high}" if high else low
    return f"{low} to {high}" if high else f"{low} or more" if low else ""


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row_with_default_and_range(name: str) -> None:
    field = Settings.model_fields[name]
    row = f"| `AUTHSERVER_{name.upper()}` | {_default(name, field)} | {_range(field)}".rstrip() + " |"
    assert row in (DOCS / "configuration.md").read_text(), f"docs/configuration.md needs: {row} … |"


def test_the_table_of_settings_has_no_other_rows() -> None:
    rows = re.findall(r"^\| `AUTHSERVER_(\w+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(name.upper() for name in Settings.model_fields)


@every_page_and_diagram
def test_settings_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"AUTHSERVER_[A-Z0-9_]*", text))
    named |= set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", text))
    known = {name.upper() for name in Settings.model_fields}
    unknown = {name for name in named if name.removeprefix("AUTHSERVER_") not in known}
    assert unknown <= {"AUTHSERVER_", "AUTHSERVER_TEST_"}


# Errors


def _slugs(kind: type[errors.Problem] = errors.Problem) -> Iterator[str]:
    yield kind.slug
    for special in kind.__subclasses__():
        yield from _slugs(special)


@pytest.fixture(scope="module")
def documented_app() -> FastAPI:
    """An application to look at; it never starts."""
    return create_app(Settings(_env_file=None))


async def _slug_of(app: FastAPI, raised: Exception) -> str:
    request = Request({"type": "http", "app": app, "method": "GET", "path": "/users/me", "headers": [], "state": {}})
    answer: Any = app.exception_handlers[type(raised)](request, raised)
    body = json.loads((await answer).body)
    return str(body["type"]).rpartition("#")[2]


async def test_every_problem_has_its_heading_and_every_heading_is_a_problem(documented_app: FastAPI) -> None:
    raised = [errors.StoreUnavailable("database", "down"), errors.Busy("full"), errors.TooManyAttempts("account", 1)]
    slugs = {*_slugs(), *[await _slug_of(documented_app, one) for one in raised]}
    headings = set(re.findall(r"^## (.+)$", (DOCS / "errors.md").read_text(), re.MULTILINE))
    assert headings - {"OAuth errors", "Errors of the authorization endpoint"} == slugs


def test_every_error_of_the_authorization_endpoint_is_in_its_table() -> None:
    told = {value.error for value in vars(refusals).values() if isinstance(value, oauth_errors.Refusal)}
    told |= {"invalid_request", oauth_errors.INVALID_SCOPE.error, oauth_errors.INVALID_TARGET.error}
    _, _, table = (DOCS / "errors.md").read_text().partition("\n## Errors of the authorization endpoint\n")
    assert re.findall(r"^\| `(\w+)` \| [^|]", table, re.MULTILINE) == ["error", *sorted(told)]


def test_each_problem_is_documented_with_its_status() -> None:
    def kinds(kind: type[errors.Problem]) -> Iterator[type[errors.Problem]]:
        yield kind
        for special in kind.__subclasses__():
            yield from kinds(special)

    text = (DOCS / "errors.md").read_text()
    for kind in kinds(errors.Problem):
        assert f"\n## {kind.slug}\n\n**{kind.status}.**" in text


def test_every_oauth_error_is_in_the_table() -> None:
    refusals = [value for value in vars(oauth_errors).values() if isinstance(value, oauth_errors.Refusal)]
    told = {(refusal.status, refusal.error) for refusal in refusals}
    told |= {(429, "temporarily_unavailable"), (503, "temporarily_unavailable"), (500, "server_error")}
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert {(int(status), error) for status, error in rows} == told


# Tables


def test_the_schema_page_has_every_table_and_column() -> None:
    assert TABLES  # importing them has filled the metadata
    documented: dict[str, list[str]] = {}
    for section in re.split(r"^## ", (DOCS / "database_schema.md").read_text(), flags=re.MULTILINE)[1:]:
        table, _, rest = section.partition("\n")
        documented[table] = re.findall(r"^\| `(\w+)` \|", rest, re.MULTILINE)
    actual = {table.name: [column.name for column in table.columns] for table in db.Base.metadata.sorted_tables}
    assert documented == actual


# Metrics


def test_operations_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(authserver_\w+)` \| (.*?) \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    documented = {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}
    actual = {}
    for value in vars(metrics).values():
        if hasattr(value, "_labelnames") and hasattr(value, "describe"):
            (family,) = value.describe()
            suffix = "_total" if family.type == "counter" else ""
            actual[f"{family.name}{suffix}"] = list(value._labelnames)
    assert documented == actual


@every_page
def test_metrics_that_are_named_exist(page: Path) -> None:
    families = {family.name for family in metrics.REGISTRY.collect()}
    named = re.findall(r"\bauthserver_[a-z_]{4,}", page.read_text())
    tokens_and_files = {"authserver_secret_key"}
    assert {name.removesuffix("_total") for name in named} - tokens_and_files <= families


# Endpoints, files, commands


def _endpoints(app: FastAPI) -> set[tuple[str, str]]:
    known = {
        (method, re.sub(r"\{\w+\}", "{}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    for path, operations in paths.items():
        known |= {(method.upper(), re.sub(r"\{\w+\}", "{}", path)) for method in operations}
    return known


@every_page_and_diagram
def test_endpoints_that_are_named_exist(page: Path, documented_app: FastAPI) -> None:
    named = re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w./{}-]*\w\}?)", page.read_text())
    named = [(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in named]
    wrong_on_purpose = {("POST", "/token/")}
    assert set(named) - wrong_on_purpose <= _endpoints(documented_app)


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    folders = (ROOT, ROOT / "authserver", DOCS, DOCS / "sequence_diagrams", ROOT / "tests")
    for name in re.findall(r"`([\w./-]+\.(?:py|puml|md|toml|yml|txt))`", page.read_text()):
        if name.startswith(("requirements", "authserver-")):
            continue
        assert any((folder / name).exists() for folder in folders), name


def test_the_architecture_page_names_every_room() -> None:
    text = (DOCS / "architecture.md").read_text()
    for room in (ROOT / "authserver").iterdir():
        if not room.name.startswith("_"):
            name = re.escape(room.name) + ("/" if room.is_dir() else "")
            assert re.search(rf"^  {name}\s", text, re.MULTILINE), room.name


def _commands() -> dict[str, set[str]]:
    """Return the options of each command, under its words."""
    found: dict[str, set[str]] = {}

    def collect(command: Any, *words: str) -> None:
        if hasattr(command, "commands"):
            for name, below in command.commands.items():
                collect(below, *words, name)
        else:
            found[" ".join(words)] = {option for parameter in command.params for option in parameter.opts}

    collect(typer.main.get_command(program.app))
    return found


@every_page
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    known = _commands()
    text = page.read_text()
    code = [body for _, language, body in FENCE.findall(text) if language in {"console", "sh"}]
    code += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in "\n".join(code).splitlines():
        for called in re.findall(r"(?:^|[ (/])authserver ([a-z][^|#)]*)", line):
            words = called.split()
            command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
            assert command is not None, line
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert options <= known[command], line


# Links


def _anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


# Diagrams


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=name_of)
def test_a_diagram_begins_and_ends(diagram: Path) -> None:
    lines = diagram.read_text().strip().splitlines()
    assert lines[0] == f"@startuml {diagram.stem}"
    assert lines[-1] == "@enduml"


def test_the_diagrams_are_there() -> None:
    assert {diagram.stem for diagram in DIAGRAMS} == {
        "authorization_code_flow",
        "circuit_breaker_flow",
        "login_flow",
        "registration_flow",
    }


# The README's commands


def _steps() -> list[tuple[str, Any]]:
    """Return the `sh` blocks, each with the JSON that the next block shows for its answer, or None."""
    blocks = [(language, body) for _, language, body in FENCE.findall((ROOT / "README.md").read_text())]
    steps: list[tuple[str, Any]] = []
    for (language, body), (next_language, next_body) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "sh":
            steps.append((body, json.loads(next_body) if next_language == "json" else None))
    return steps


def _assert_like(actual: Any, shown: Any) -> None:
    """Compare an answer with what the page shows; `…` stands for anything but nothing."""
    if isinstance(shown, dict):
        assert list(actual) == list(shown)
        for name, value in shown.items():
            _assert_like(actual[name], value)
    elif shown == ANYTHING:
        assert actual not in (None, "", [], {})
    else:
        assert actual == shown


@pytest.mark.slow
async def test_the_readme_runs_as_it_is_written(tmp_path: Path) -> None:
    command = tmp_path / ".venv" / "bin" / "authserver"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m authserver "$@"\n')
    command.chmod(0o755)
    env = environment({}) | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    steps = _steps()
    assert len(steps) > 5

    async def run(script: str) -> str:
        shell = ["sh", "-euc", script]
        done = await asyncio.to_thread(
            subprocess.run, shell, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    await run(".venv/bin/authserver db upgrade")
    server = Program(tmp_path, {})
    try:
        await server.ready()
        script = "printf '\\n=====\\n'\n".join(block for block, _ in steps)
        script = script.replace("read -r ANSWER", PERSON)
        answers = (await run(script.replace("http://127.0.0.1:8000", server.url))).split("\n=====\n")
    finally:
        server.kill()
    for (block, shown), answer in zip(steps, answers, strict=True):
        if shown is not None:
            assert answer.strip(), block
            _assert_like(json.loads(answer.replace(server.url, "http://127.0.0.1:8000")), shown)
