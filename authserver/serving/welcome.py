"""What a developer may paste, once the server is up."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# `: words` is a comment that zsh takes from the keyboard too. Only curl and python3 are needed.
_TEXT = """
authserver is up at {url} (development). In the browser: your account at {url}/, the API to try at {url}/docs
Stop it with Ctrl-C. In another terminal, paste all of this, or line by line:

  cd {directory} && URL={url} && {field}
  : Register a user
  curl -sS -w '\\n' $URL/register -H 'Content-Type: application/json' \\
    -d '{{"username": "alice", "email": "alice@example.com", "password": "seven grey herons over the weir"}}'
  : Make a client that may sign users in and ask about tokens
  CLIENT=$({command} clients create --name "First steps" --grant password --grant refresh_token --introspect --json)
  KEY=$(printf %s "$CLIENT" | field client_id):$(printf %s "$CLIENT" | field client_secret)
  : Get tokens for the user
  TOKENS=$(curl -sS $URL/token -u "$KEY" -d grant_type=password -d username=alice \\
    --data-urlencode 'password=seven grey herons over the weir') && echo "$TOKENS"
  TOKEN=$(printf %s "$TOKENS" | field access_token)
  : Ask whether the access token is good, revoke it, ask again
  curl -sS -w '\\n' $URL/introspect -u "$KEY" -d token="$TOKEN"
  curl -sS -w '\\n' $URL/revoke -u "$KEY" -d token="$TOKEN"
  curl -sS -w '\\n' $URL/introspect -u "$KEY" -d token="$TOKEN"
{elsewhere}
"""
_FIELD = """field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }"""


def text(url: str, from_environment: Sequence[str]) -> str:
    """Return what to try next; `from_environment` names the settings that the other terminal must have as well."""
    elsewhere = ""
    if from_environment:
        elsewhere = f"\nThe other terminal needs the same values of: {', '.join(sorted(from_environment))}\n"
    return _TEXT.format(
        url=url,
        directory=shlex.quote(str(Path.cwd())),
        field=_FIELD,
        command=_command(),
        elsewhere=elsewhere,
    )


def _command() -> str:
    """Return how this program was called, as short as it can be said in this directory."""
    program = Path(sys.argv[0]).absolute()
    if program.name != "authserver":
        return f"{shlex.quote(sys.executable)} -m authserver"
    if shutil.which("authserver") == str(program):
        return "authserver"
    if program.is_relative_to(Path.cwd()):
        return shlex.quote(str(program.relative_to(Path.cwd())))
    return shlex.quote(str(program))
