"""POST /token, grant_type=authorization_code (RFC 6749 §4.1.3, RFC 7636)."""

from tests.code_flow import NewFlow
from tests.factories import claims_of


async def test_a_code_is_traded_for_tokens(new_flow: NewFlow) -> None:
    flow = await new_flow()
    tokens = await flow.tokens()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token"}
    assert claims_of(tokens["id_token"])["nonce"] == "the nonce"
    assert await flow.is_active(tokens["access_token"])
