"""What operators end is told to clients too, by the servers."""

import pytest

from tests.cli.conftest import Run
from tests.code_flow import NewFlow
from tests.factories import claims_of
from tests.receiver import receiving
from tests.test_backchannel_logout import heard

COMMANDS = ["sessions revoke --user", "sessions revoke --client", "users disable", "users delete", "clients disable"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_client_hears_of_what_an_operator_ends(run: Run, new_flow: NewFlow, command: str) -> None:
    async with receiving() as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        tokens = await flow.tokens()
        whose = flow.app.client_id if "client" in command else flow.user.username
        confirmed = ["--yes"] if command == "users delete" else []
        done = await run(*command.split(), whose, *confirmed)
        assert done.status == 0, done.stderr
        (notice,) = await heard(receiver)
        assert notice["sid"] == claims_of(tokens["id_token"])["sid"]
