from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from commands import looking
from commands.front_door import app
from engine.dataset import Dataset
from tests.processes import run_python
from tests.trees import start_sigma
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


@pytest.mark.slow
def test_browse_answers_this_machine_alone_and_ends_on_ctrl_c(dataset: Dataset) -> None:
    with browsing(dataset) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert "Every row" in httpx.get(f"{address}images/0", timeout=60).text
        foreign = httpx.get(address, headers={"host": "evil.example"}, timeout=60)
        assert foreign.status_code == 421 and "not known by that name" in foreign.text
        process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=60)
        assert (process.returncode, out, complaints) == (0, "", "")


@pytest.mark.slow
def test_browse_warns_where_others_can_reach_it_and_answers_by_the_name_alone(dataset: Dataset) -> None:
    with browsing(dataset, "--host", "0.0.0.0", "--allow-host", "photos.example") as (process, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{local}nouns", headers={"host": "photos.example"}, timeout=60).status_code == 200
        assert httpx.get(f"{local}nouns", timeout=60).status_code == 421
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0
        assert complaints == "warning: 0.0.0.0 can be reached from other machines, and nobody is asked who they are\n"


@pytest.mark.slow
def test_browse_needs_a_dataset(tmp_path: Path) -> None:
    assert f"{tmp_path}: no dataset here; make one with sigma build" in refused(str(tmp_path), "--port", "0")


@pytest.mark.slow
def test_browse_names_a_port_that_is_taken(dataset: Dataset) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused(str(dataset.root), "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: " in said and "name another with --port" in said


ROWS = "select row_id, repeat('x', 300) || row_id as long from listing order by all"


def queried(dataset: Dataset, *arguments: str) -> str:
    """The output of `sigma sql` in a pipe, whatever the width of the terminal around it."""
    done = run_python("-m", "sigma", "sql", dataset.root, *arguments, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return str(done.stdout)


@pytest.mark.slow
def test_sql_in_a_pipe_cuts_neither_values_nor_headers(dataset: Dataset) -> None:
    head, *rows = [line.split() for line in queried(dataset, ROWS).splitlines()]
    assert head == ["row_id", "long"] and len(rows) > 4
    assert all(long == "x" * 300 + row_id for row_id, long in rows)
    many = queried(dataset, "select i from range(1500) as t(i)")
    assert len(many.splitlines()) == 1501, "nor rows"


def test_sql_in_a_table_of_a_narrow_terminal_shows_every_letter(dataset: Dataset, monkeypatch: Any) -> None:
    shown = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    monkeypatch.setattr(looking, "console", shown)
    looking.sql(dataset.root, ROWS)
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue()
    assert "\u2026" not in text and text.count("x") >= 300 * 5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "json"])
def test_sql_writes_other_formats(dataset: Dataset, form: str) -> None:
    text = queried(dataset, "select row_id, member, null as n from listing order by row_id limit 2", "--format", form)
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["row_id"] for row in rows] == ["0", "1"] and rows[0]["n"] == ""
    else:
        assert [row["row_id"] for row in json.loads(text)] == [0, 1]
        views = {row["view"] for row in json.loads(queried(dataset, "--tables", "--format", form))}
        assert views >= {"ledger", "captions"}


@pytest.mark.slow
def test_sql_writes_parquet_to_a_file(dataset: Dataset, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sigma", "sql", str(dataset.root), "from listing", "--format", "parquet"]
    with (tmp_path / "rows.parquet").open("wb") as file:
        subprocess.run(command, check=True, stdout=file)
    assert pq.read_table(tmp_path / "rows.parquet")["row_id"].to_pylist() == [*range(7)]


@pytest.mark.parametrize("num_rows", [1, 5_000])
@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_sql_says_where_its_output_takes_nothing(form: str, num_rows: int, dataset: Dataset) -> None:
    words = ("sql", dataset.root, f"from range({num_rows})", "--format", form)
    with Path("/dev/full").open("wb") as full:
        process = start_sigma(*words, stdout=full, stderr=subprocess.PIPE, text=True)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told.count("\n")) == (1, 1) and told.startswith("error: no space left on the disk")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "table"])
def test_sql_ends_quietly_where_nobody_reads_on(form: str, dataset: Dataset) -> None:
    query = "select repeat('x', 1000) from range(3000)"
    command = [sys.executable, "-m", "sigma", "sql", str(dataset.root), query, "--format", form]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_sql_has_a_limit_for_tables_alone(dataset: Dataset) -> None:
    done = run_python("-m", "sigma", "sql", dataset.root, "from listing", "--limit", "3", "--format", "csv", env=WIDE)
    assert done.returncode == 1 and "write LIMIT 3 into the query" in done.stderr


@pytest.mark.parametrize("words", [["sql", "select 1", "--limit"], ["cuts", "select.max_aspect=2", "--pictures"]])
def test_a_number_of_rows_that_no_query_takes_is_refused(words: list[str], dataset: Dataset) -> None:
    done = CliRunner().invoke(app, [words[0], str(dataset.root), *words[1:], str(10**20)])
    assert (done.exit_code, done.stdout) == (2, "")


def test_status_shows_rate_and_time_left_of_each_job_in_progress(small: Dataset, copy_of: Any) -> None:
    dataset, now = copy_of(small), time.time()
    for table, seconds in (("scores", 30), ("fingerprints", 6)):
        dataset.part(table, 2).unlink()
        for number in range(2):
            committed = now - seconds * (1 - number)
            os.utime(dataset.part(table, number), (committed, committed))
    shown = CliRunner().invoke(app, ["status", str(dataset.root)], env=WIDE).output
    lines = {line.split()[1]: " ".join(line.split()) for line in shown.splitlines() if " of " in line}
    assert lines["scores"] == "aesthetic scores 2 of 3 2.0 parts/min 30.0 s left"
    assert lines["fingerprints"] == "fingerprint fingerprints 2 of 3 10.0 parts/min 6.0 s left"
    assert lines["images"] == "ingest images 3 of 3"
