"""Datasets that tests only look at are built once."""

from __future__ import annotations

import fcntl
import gc
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from PIL import EpsImagePlugin
from typer import testing

from curation.sources.demo_photos import write_demo_photos
from engine import catalog
from engine.dataset import Dataset
from tests import ray_head
from tests.building import build, recipe, write_pictures
from tests.fork_server import skip_fsync
from tests.processes import start_server_here, stop_server
from tests.workers import LONGEST, WORKER, run_in_workers, seconds_key

settings.register_profile("busy machine", deadline=None)  # its cores are shared: a slow example is no defect
settings.load_profile("busy machine")
testing._get_command = cache(testing._get_command)  # to read what all commands take costs more than most tests of one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--workers", type=int, default=0, help="Processes that share the test files; 0 runs them in this one."
    )


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts its background jobs with SIGINT ignored, and tests that interrupt a process need it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    skip_fsync()
    gc.disable()  # what is imported while tests are collected stays
    if config.getoption("workers") and not config.option.collectonly:
        start_server_here()  # shared by all workers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files that took longest come first, so that all workers end at about the same time; where no run has told,
    those that take longest elsewhere, then those with many slow tests."""
    gc.freeze()  # or a process forked from this one would copy these objects' pages when it collects
    gc.enable()
    gc.set_threshold(10_000)  # rather than 700: tests make many objects and few circles
    cache = getattr(config, "cache", None)  # -p no:cacheprovider
    seconds = cache.get(seconds_key(config), {}) if cache else {}
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    longest = {Path(__file__).parent / name: -place for place, name in enumerate(reversed(LONGEST), 1)}
    items.sort(key=lambda item: (-seconds.get(str(item.path), 1e9), longest.get(item.path, 0), -slow[item.path]))


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not session.config.getoption("workers") or session.config.option.collectonly or session.testsfailed:
        return None
    run_in_workers(session, session.config.getoption("workers"))
    return True


def pytest_sessionfinish() -> None:
    stop_server()


@pytest.fixture(autouse=True)
def without_meanings(request: pytest.FixtureRequest) -> Iterator[None]:
    """A catalog has a comment for each column of each view, 260 statements that take a tenth of a small build. They are
    left out in the process of the tests, but where a test reads them."""
    wanted = request.node.get_closest_marker("meanings")
    with nullcontext() if wanted else patch.object(catalog, "_meanings", lambda connection: []):
        yield


@pytest.fixture(scope="session")
def in_one_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder of this name for all workers, made by the first that needs it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith(WORKER) else base

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder, whole = shared / name, shared / f"{name}-is-whole"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                whole.touch()
        return folder

    return folder_of


@pytest.fixture
def on_ray(in_one_folder: Callable[[str, Callable[[Path], None]], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on Ray joins the one cluster of these tests, here and in processes that are started here."""
    address = in_one_folder("ray", ray_head.start) / "address"
    monkeypatch.setenv("RAY_ADDRESS", address.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def demo(in_one_folder: Callable[[str, Callable[[Path], None]], Path]) -> Dataset:
    """The demo's photographs through every job; not to be changed."""

    def make(folder: Path) -> None:
        write_demo_photos(folder / "photos")
        made = recipe(
            folder / "photos",
            folder / "dataset",
            part_rows=12,
            select={"min_short_side_px": 160, "subsets": {"wide": "aspect < 0.8"}},
            shard={"megabytes": 2},
        )
        build(made, without=())

    return Dataset(in_one_folder("demo", make) / "dataset")


@pytest.fixture(scope="session")
def small(in_one_folder: Callable[[str, Callable[[Path], None]], Path]) -> Dataset:
    """Eight pictures in two buckets and three shards; not to be changed."""

    def make(folder: Path) -> None:
        write_pictures(folder / "photos", [(96, 64)] * 5 + [(64, 96)] * 3)
        build(recipe(folder / "photos", folder / "dataset", shard={"max_samples": 3}))

    return Dataset(in_one_folder("small", make) / "dataset")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Dataset], Dataset]:
    """A copy of a dataset that a test may damage."""

    def copy(dataset: Dataset) -> Dataset:
        shutil.copytree(dataset.root, tmp_path / "copy")
        return Dataset(tmp_path / "copy")

    return copy


@pytest.fixture
def ghostscript_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` on the PATH that writes down that it was called; the file that it writes to."""
    log = tmp_path / "called"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho called >> {log}\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return log


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3 server on loopback, with a bucket."""
    from tests.storing import storing  # which needs moto

    with storing() as server:
        yield server


@pytest.fixture
def bucket(s3: Any) -> Iterator[Any]:
    """The same, empty, where this process and those that it starts find it."""
    from tests.storing import as_user_of

    with as_user_of(s3) as server:
        yield server
