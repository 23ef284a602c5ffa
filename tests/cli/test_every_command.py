"""What holds for all commands, whatever they do."""

import json
from pathlib import Path
from typing import Any

import pytest

from authserver.cli.program import app
from tests.assertions import KEYS, key_set
from tests.cli.conftest import Run
from tests.factories import PASSWORD
from tests.stores import Backend, Stores

NO_COMMAND = [["nonsense"], ["users"], ["users", "show"], ["users", "list", "--nonsense"], ["--json", "prune"]]


def every_command() -> set[tuple[str, ...]]:
    """Name all commands that there are."""
    found: set[tuple[str, ...]] = {(str(command.name),) for command in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance
        for command in group.typer_instance.registered_commands:
            assert command.callback
            found.add((str(group.name), command.name or command.callback.__name__.replace("_", "-")))
    return found


async def test_each_prints_one_json_document_and_nothing_else(
    run: Run, databases: Stores, backend: Backend, tmp_path: Path
) -> None:
    url = await databases.empty_database(backend)
    tried = set()

    async def answer(*arguments: str, stdin: str = "") -> Any:
        tried.add(arguments[:1] if arguments[0] in {"prune", "doctor"} else arguments[:2])
        done = await run(*arguments, "--json", stdin=stdin, database_url=url)
        assert done.stderr == "", arguments
        return done.json

    await answer("db", "upgrade")
    await answer("db", "current")
    await answer("db", "check")
    await answer("doctor")
    names = ("--username", "ada", "--email", "ada@example.com")
    await answer("users", "create", *names, "--password-stdin", stdin=PASSWORD)
    await answer("users", "list")
    await answer("users", "show", "ada")
    await answer("users", "disable", "ada")
    await answer("users", "enable", "ada")
    await answer("users", "set-password", "ada", "--password-stdin", stdin=PASSWORD)
    made = await answer("clients", "create", "--name", "App", "--client-id", "app", "--grant", "password")
    await answer("clients", "list")
    await answer("clients", "show", "app")
    await answer("clients", "update", "app", "--scope", "openid")
    await answer("clients", "password-report")
    await answer("clients", "rotate-secret", "app")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(key_set(KEYS["ES256"])))
    await answer("clients", "create", "--name", "S", "--client-id", "s", "--jwks", str(keys), "--introspect")
    await answer("clients", "set-keys", "s", "--jwks", str(keys))
    await answer("clients", "disable", "app")
    await answer("clients", "enable", "app")
    await answer("sessions", "list")
    await answer("sessions", "revoke", "--user", "ada")
    await answer("keys", "rotate")
    await answer("keys", "list")
    await answer("prune")
    await answer("token", "explain", stdin=made["client_secret"])
    await answer("users", "delete", "ada")
    await answer("clients", "delete", "app")
    await answer("db", "downgrade", "base")
    assert tried == every_command() - {("serve",)}


async def test_each_knows_json_and_says_what_it_does(run: Run) -> None:
    for command in sorted(every_command()):
        done = await run(*command, "--help")
        assert done.status == 0
        assert "--json" in done.stdout, command
        assert ". " in done.stdout, command


@pytest.mark.parametrize("arguments", NO_COMMAND)
async def test_wrong_usage_is_exit_status_2(run: Run, arguments: list[str]) -> None:
    done = await run(*arguments)
    assert done.status == 2
