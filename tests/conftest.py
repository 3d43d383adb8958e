"""The order of the test files: those that start clusters and processes go first."""

from __future__ import annotations

import pytest

LONG = (
    "test_kill_and_resume.py",
    "test_sigma.py",
    "test_elastic.py",
    "test_sharding.py",
    "test_train.py",
    "test_ray_runner.py",
    "test_planning.py",
    "test_killed_captioning.py",
    "test_urls.py",
    "test_purge.py",
    "test_pages.py",
)
"""Each takes half a minute or more. Two processes share the files (`make test`), and what is long must not come last,
when only one of them has anything left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort files into this order; the tests of a file stay as they are."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
