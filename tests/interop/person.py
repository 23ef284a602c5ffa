"""A person whose browser knows only HTTP: follows redirects, keeps cookies, fills in our pages.

    python -m tests.interop.person ada http://127.0.0.1:8000/authorize?… http://127.0.0.1:3000/

prints where the browser is sent in the end.
"""

import re
import sys
from urllib.parse import urljoin

import httpx

from tests.factories import PASSWORD

_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
_STEPS = 12


class Browser:
    """One browser of one person: `with Browser("ada") as browser: answer = browser.goes(url, "https://app.example/")`."""

    def __init__(self, username: str) -> None:
        self._username = username
        self._http = httpx.Client(timeout=30)

    def __enter__(self) -> "Browser":
        """Open it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; its cookies are gone."""
        self._http.close()

    def goes(self, url: str, until: str) -> str:
        """Go to `url`, sign in and allow whatever is asked, until the browser is sent to what begins with `until`."""
        answer = self._http.get(url)
        for _ in range(_STEPS):
            if answer.is_redirect:
                url = urljoin(url, answer.headers["location"])
                if url.startswith(until):
                    return url
                answer = self._http.get(url)
            else:
                assert answer.status_code == 200, answer.text
                answer = self._http.post(url, data=self._filled_in(answer.text), headers={"Origin": _origin(url)})
        raise AssertionError(f"it goes round in circles: {url}")

    def _filled_in(self, page: str) -> dict[str, str]:
        token = _TOKEN.search(page)
        assert token, page
        form = {"form_token": token.group(1)}
        if 'name="password"' in page:
            form |= {"username": self._username, "password": PASSWORD}
        if 'name="decision"' in page:
            form["decision"] = "allow"
        return form


def _origin(url: str) -> str:
    return urljoin(url, "/").rstrip("/")


if __name__ == "__main__":
    who, start, end = sys.argv[1:]
    with Browser(who) as opened:
        sys.stdout.write(opened.goes(start, end) + "\n")
