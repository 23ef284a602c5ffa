"""What runs in the background of a serving process goes on, whatever happens to it."""

import asyncio
from typing import Any

import pytest

from authserver import services
from authserver.services import Services
from authserver.settings import Settings


@pytest.mark.parametrize("part", ["db", "redis", "keyring", "denylist", "pruner"])
async def test_a_job_of_the_background_that_fails_is_begun_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    begun: list[str] = []
    went_on = asyncio.Event()

    async def watch() -> None:
        begun.append(part)
        if len(begun) == 1:
            raise RuntimeError("a mistake of ours")
        went_on.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(services, "_PAUSE_SECONDS", 0.01)
    house: Any = Services.build(settings)
    monkeypatch.setattr(getattr(house, part), "watch", watch)
    async with house.running():
        await asyncio.wait_for(went_on.wait(), 10)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["background_job_failed"]
