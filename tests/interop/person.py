"""A person whose browser knows only HTTP: follows redirects, keeps cookies, fills in our pages."""

import re
from urllib.parse import urljoin

import httpx

from tests.factories import PASSWORD, Person

_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
_STEPS = 12


class Browser:
    """One browser of one person; `with Browser(user) as browser: answer = browser.goes(url, "https://app.example/")`."""

    def __init__(self, user: Person) -> None:
        self._user = user
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
            form |= {"username": self._user.username, "password": PASSWORD}
        if 'name="decision"' in page:
            form["decision"] = "allow"
        return form


def _origin(url: str) -> str:
    return urljoin(url, "/").rstrip("/")
