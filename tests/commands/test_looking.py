from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engine.dataset import Dataset
from tests.processes import run_python
from tests.viewer.test_report import PHOTOS, build

WIDE = {**os.environ, "COLUMNS": "1000", "PYTHONUNBUFFERED": "1"}
"""A console so wide that a message that should be one line is one."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build(tmp_path_factory.mktemp("looking") / "data", PHOTOS, ["one", "two", "three", "four"])


@contextmanager
def browsing(dataset: Dataset, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`sigma browse` as a fresh interpreter, and the address that it prints."""
    command = [sys.executable, "-m", "sigma", "browse", str(dataset.root), "--port", "0", "--no-open", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=WIDE) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            address = re.fullmatch(r"browse: (http://\S+:\d+/)   \(Ctrl-C ends it\)\n", said)
            assert address is not None, said + (process.stderr.read() if process.stderr and not said else "")
            yield process, address.group(1)
        finally:
            process.kill()


def refused(*arguments: str) -> str:
    """The one line of a `sigma browse` that ends with status 1."""
    ended = run_python("-m", "sigma", "browse", *arguments, "--no-open", env=WIDE)
    assert ended.returncode == 1 and ended.stdout == "", ended
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("error: "), ended.stderr
    return ended.stderr


def test_browse_answers_this_machine_alone_and_ends_on_ctrl_c(dataset: Dataset) -> None:
    with browsing(dataset) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert "Every row" in httpx.get(f"{address}images/0", timeout=60).text
        foreign = httpx.get(address, headers={"host": "evil.example"}, timeout=60)
        assert foreign.status_code == 421 and "not known by that name" in foreign.text
        process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=60)
        assert (process.returncode, out, complaints) == (0, "", "")


def test_browse_warns_where_others_can_reach_it_and_answers_by_the_name_alone(dataset: Dataset) -> None:
    with browsing(dataset, "--host", "0.0.0.0", "--allow-host", "photos.example") as (process, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{local}nouns", headers={"host": "photos.example"}, timeout=60).status_code == 200
        assert httpx.get(f"{local}nouns", timeout=60).status_code == 421
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0
        assert complaints == "warning: 0.0.0.0 can be reached from other machines, and nobody is asked who they are\n"


def test_browse_needs_a_dataset(tmp_path: Path) -> None:
    assert f"{tmp_path}: no dataset here; make one with sigma build" in refused(str(tmp_path), "--port", "0")


def test_browse_names_a_port_that_is_taken(dataset: Dataset) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused(str(dataset.root), "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: " in said and "name another with --port" in said
