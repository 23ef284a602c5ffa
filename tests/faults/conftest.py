"""What breaks servers on purpose runs one after the other: two at a time would judge each other's noise."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all tests of this folder to one of pytest-xdist's processes."""
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("faults"))
