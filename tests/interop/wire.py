"""HTTP by hand: what no client library would send."""

import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Heard:
    """What came back until the server closed the connection, and when."""

    data: bytes
    seconds: float
    was_closed: bool

    @property
    def statuses(self) -> list[int]:
        """Of all responses, interim ones too."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.data)]

    @property
    def head(self) -> bytes:
        """Of the first response, in small letters."""
        return self.data.partition(b"\r\n\r\n")[0].lower()


def talk(url: str, *parts: bytes, wait: float = 5, pause: float = 0) -> Heard:
    """Send the parts, `pause` seconds between them; listen until the server closes, at most `wait` seconds."""
    address = urlsplit(url)
    started = time.monotonic()
    heard = bytearray()
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as connection:
        for part in parts:
            with suppress(OSError):  # it need not wait for the end of nonsense
                connection.sendall(part)
            time.sleep(pause)
        while (left := started + wait - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except TimeoutError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                return Heard(bytes(heard), time.monotonic() - started, was_closed=True)
            heard += data
    return Heard(bytes(heard), time.monotonic() - started, was_closed=False)


def request(
    target: str = "/token",
    *headers: str | bytes,
    body: bytes = b"",
    method: str = "POST",
    media_type: str | None = FORM,
    length: bool = True,
    close: bool = True,
    version: str = "HTTP/1.1",
) -> bytes:
    """Write a request as it is asked for, sense or not."""
    lines: list[str | bytes] = [f"{method} {target} {version}", "Host: auth.example.com", *headers]
    if media_type is not None:
        lines.append(f"Content-Type: {media_type}")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\r\n\r\n" + body


def chunks(*parts: bytes) -> bytes:
    """Write a chunked body (RFC 9112 §7.1)."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))
