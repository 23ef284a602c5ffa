"""An application that people sign in to, small: its callback leads on to another origin, as many do."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from tests.servers import LOOPBACK


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Send the callback on to the welcome page under another name of this machine, which is another origin."""
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path == "/callback":
            self.send_response(302)
            said = query.get("error", ["code" if "code" in query else "nothing"])[0]
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/welcome?said={said}")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<title>Photos</title><h1>Welcome: {query.get('said', ['nobody'])[0]}</h1>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running() -> Iterator[str]:
    """Run it; the value is its redirect URI."""
    with ThreadingHTTPServer((LOOPBACK, 0), _Pages) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_address[1]}/callback"
        server.shutdown()
        thread.join()
