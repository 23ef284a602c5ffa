"""Which passwords are refused at /register, and that the refusal says what to do (NIST SP 800-63B-4 §3.1.1.2)."""

import secrets
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from authserver.settings import Settings
from authserver.users import common_passwords, policy
from tests.factories import NewClient, basic

COMMON, VARIED, NAMES = "list of common", "repeated or neighbouring", "Leave "


async def faults(client: httpx.AsyncClient, password: str, **changes: str) -> list[str]:
    """Register somebody with the password; return what is said against it."""
    name = f"someone-{secrets.token_hex(6)}"
    new = {"username": name, "email": f"{name}@example.com", "password": password} | changes
    response = await client.post("/register", json=new)
    if response.status_code == 201:
        return []
    problem = response.json()
    assert response.status_code == 422, response.text
    assert {error["pointer"] for error in problem["errors"]} == {"/password"}
    assert password not in response.text
    return [error["detail"] for error in problem["errors"]]


ACCEPTED = [
    "x" * 64,  # no rule against what nobody comes to guess
    "correct horse battery staple",
    "a-long-test-password-42",
    "Tr0ub4dor-and-3-friends",
    "kT7#mQ2$vX9!pL4",
    "пароль который я помню",
    "日本語のとても長いパスフレーズです",
    "🐎🔋📎✅🎉🚀🌍🍕🎸📚🐙🌵🧩🎲🛰️",
    "  spaces  at  both ends  ",
    "tab\there and no composition rules",
    "o'brien\"; drop table users --",
    "".join(f"{n} bottles on the wall, " for n in range(6))[:128],
    "".join(f"{n} green bottles, " for n in range(99, 80, -1))[:256],
]


@pytest.mark.parametrize("password", ACCEPTED, ids=lambda password: ascii(password)[:24])
async def test_an_ordinary_passphrase_is_accepted(client: httpx.AsyncClient, password: str) -> None:
    assert await faults(client, password) == []


REFUSED = {
    "passwordpassword": COMMON,
    "correcthorsebatterystaple": COMMON,
    "CorrectHorseBatteryStaple": COMMON,
    "123456789012345": COMMON,
    "qwertyuiopasdfgh": COMMON,
    "1q2w3e4r5t6y7u8i": COMMON,
    "１２３４５６７８９０１２３４５": COMMON,
    "Password12345678": VARIED,
    "P@ssw0rd12345678": VARIED,
    "correcthorsebatterystaple123": VARIED,
    "iloveyouiloveyou": VARIED,
    "iloveyou iloveyou": VARIED,
    "ab12cd34ab12cd34": VARIED,
    "monkeymonkeymonkey1!": VARIED,
    "x" * 63: VARIED,
    "🐎" * 20: VARIED,
    "987654321098765": VARIED,
    "αβγδεζηθικλμνξοπ": VARIED,
    "йцукенгшщзхъфыва": VARIED,
    "!@#$%^&*()_+!@#$%^": VARIED,
}


@pytest.mark.parametrize("password", REFUSED, ids=lambda password: ascii(password)[:24])
async def test_a_password_that_is_guessed_early_is_refused(client: httpx.AsyncClient, password: str) -> None:
    [sentence] = await faults(client, password)
    assert REFUSED[password] in sentence


@pytest.mark.parametrize(
    ("password", "changes"),
    [
        ("zaphod likes long walks", {"username": "Zaphod"}),
        ("I am ZAPHOD of Betelgeuse", {"username": "zaphod"}),
        ("my friend trillian said so", {"email": "trillian@example.com"}),
        ("secret of the Authserver", {}),
    ],
)
async def test_a_password_holds_no_name(client: httpx.AsyncClient, password: str, changes: dict[str, str]) -> None:
    found = await faults(client, password, **changes)
    assert len(found) == 1
    assert found[0].startswith(NAMES)


async def test_short_names_are_not_looked_for(client: httpx.AsyncClient) -> None:
    name = f"x{secrets.token_hex(6)}"
    assert await faults(client, "a sentence with the letters ab", username=name, email=f"ab@{name}.example") == []


async def test_length_is_counted_in_characters_after_normalising(client: httpx.AsyncClient) -> None:
    assert "at least 15" in (await faults(client, "kT7#mQ2$vX9!pL"))[0]
    assert "at least 15" in (await faults(client, "e\u0301a\u0301o\u0301u\u0301i\u0301c\u0327n\u0303k"))[0]
    assert await faults(client, "".join(chr(0x4E00 + 37 * n) for n in range(256))) == []
    assert "at most 256" in (await faults(client, "".join(chr(0x4E00 + 37 * n) for n in range(257))))[0]


@pytest.mark.parametrize(
    "password", ["", "a\x00 correct horse battery", "correct horse\r\nbattery staple", "\ud800" * 20]
)
def test_what_is_no_text_is_refused(settings: Settings, password: str) -> None:
    assert len(policy.faults(password, settings, username="someone", email="someone@example.com")) == 1


async def test_all_spellings_of_a_password_are_one(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app, name = await new_client(), f"someone-{secrets.token_hex(6)}"
    new = {"username": name, "email": f"{name}@example.com", "password": "ﬁne cafe\u0301 with 3 good ideas"}
    assert (await client.post("/register", json=new)).status_code == 201
    composed = "fine caf\u00e9 with 3 good ideas"
    for password, status in ((new["password"], 200), (composed, 200), (composed.title(), 400)):
        form = {"grant_type": "password", "username": name, "password": password}
        assert (await client.post("/token", data=form, auth=basic(app))).status_code == status


@pytest.mark.parametrize("password", ["password1", "iloveyou!", "12345678", "Qwertyui"])
async def test_the_list_holds_shorter_ones_too(client_with: Callable[..., Any], password: str) -> None:
    client = await client_with(password_min_length=8)
    assert COMMON in (await faults(client, password))[0]
    assert await faults(client, "x7Kp2mQz") == []


def test_every_entry_of_the_list_is_found() -> None:
    words = common_passwords._words().decode().split("\n")[:-1]
    assert len(words) > 180_000
    assert words == sorted(words, key=str.encode)
    for word in (words[0], words[-1], *words[:: len(words) // 500]):
        assert common_passwords.contains(word)
        assert common_passwords.length_of_word_at_start(word + "é") >= len(word)
        assert not common_passwords.contains(word + "\x7f")
    for text in ("", "a", "\U0010ffff", "correct horse"):
        assert not common_passwords.contains(text)
        assert common_passwords.length_of_word_at_start(text) == 0


def test_the_list_is_small_in_memory_and_quick() -> None:
    common_passwords._words.cache_clear()
    tracemalloc.start()
    common_passwords.contains("something")
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * 2**20
    settings = Settings(_env_file=None)
    began = time.process_time()
    for password in ("correct horse battery staple", "password" * 32, "zqj" * 85, "1234567890" * 25):
        policy.faults(password, settings, username="someone", email="someone@example.com")
    assert time.process_time() - began < 0.05
