"""The answer to an authorization request, on its way back through the browser (RFC 6749 §4.1.2, RFC 9207)."""

import base64
import hashlib
import logging
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response

from authserver.oauth.errors import Refusal
from authserver.observability import metrics

QUERY, FRAGMENT, FORM_POST = "query", "fragment", "form_post"
MODES = (QUERY, FRAGMENT, FORM_POST)
"""OAuth 2.0 Multiple Response Types §2.1, OAuth 2.0 Form Post Response Mode."""
_SUBMIT = "document.forms[0].submit()"
_SUBMIT_HASH = base64.b64encode(hashlib.sha256(_SUBMIT.encode()).digest()).decode()
_NEVER_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_POLICY = f"default-src 'none'; script-src 'sha256-{_SUBMIT_HASH}'; base-uri 'none'; frame-ancestors 'none'"
"""Without `form-action`: browsers apply it to where the client redirects next, too."""
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Back to the application</title></head>
<body>
<form method="post" action="{action}">
{fields}
<noscript><button>Continue</button></noscript>
</form>
<script>{script}</script>
</body>
</html>
"""
_FIELD = '<input type="hidden" name="{}" value="{}">'
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WayBack:
    """Where the answer goes and how. It exists only for a client and a redirect URI that are sound."""

    redirect_uri: str
    mode: str
    state: str | None
    issuer: str

    @classmethod
    def of(cls, parameters: dict[str, str], redirect_uri: str, issuer: str) -> "WayBack":
        """Return the way that a request asks for; a mode that there is not is refused in the default one."""
        mode = parameters.get("response_mode", QUERY)
        return cls(redirect_uri, mode if mode in MODES else QUERY, parameters.get("state"), issuer)

    def code(self, code: str) -> Response:
        """Send a code."""
        metrics.AUTHORIZATIONS.labels("code").inc()
        return self._answer({"code": code})

    def refusal(self, refusal: Refusal) -> Response:
        """Send an error."""
        metrics.AUTHORIZATIONS.labels(refusal.error).inc()
        reason = refusal.reason or refusal.description
        log.info("authorization_refused", extra={"error": refusal.error, "reason": reason})
        return self._answer({"error": refusal.error, "error_description": refusal.description})

    def _answer(self, answer: dict[str, str]) -> Response:
        fields = answer | ({} if self.state is None else {"state": self.state}) | {"iss": self.issuer}
        if self.mode == FORM_POST:
            inputs = "\n".join(_FIELD.format(escape(name), escape(value)) for name, value in fields.items())
            page = _PAGE.format(action=escape(self.redirect_uri), fields=inputs, script=_SUBMIT)
            return HTMLResponse(page, headers={**_NEVER_STORED, "Content-Security-Policy": _POLICY})
        separator = "#" if self.mode == FRAGMENT else "&" if "?" in self.redirect_uri else "?"
        return see_other(f"{self.redirect_uri}{separator}{urlencode(fields)}")


def see_other(address: str) -> Response:
    """Send the browser on, by GET whatever it came by; the address is nobody else's to keep."""
    return RedirectResponse(address, 303, _NEVER_STORED)
