"""Logout tokens: what a client gets to hear when a sign-in has ended (Back-Channel Logout §2.4)."""

from uuid import uuid4

from authserver import clock
from authserver.keys.keyring import Keyring
from authserver.keys.signing import sign
from authserver.settings import Settings
from authserver.tokens.id_token import known

_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LIFE_SECONDS = 120
"""As §4 advises; a later delivery gets a token of its own."""


class LogoutTokens:
    """Writes logout tokens of this issuer."""

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self._issuer = settings.issuer
        self._keyring = keyring

    def issue(self, *, algorithm: str, client_id: str, subject: str, session_id: str) -> str:
        """Return a signed token, with the algorithm of the client's ID tokens; StoreUnavailable while there is no key.

        No nonce: so that it cannot pass for an ID token.
        """
        now = int(clock.now().timestamp())
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": client_id,
            "iat": now,
            "exp": now + _LIFE_SECONDS,
            "jti": str(uuid4()),
            "events": {_EVENT: {}},
            "sid": session_id,
        }
        return sign(self._keyring.signing_key(known(algorithm)), "logout+jwt", claims)
