"""Other projects' data tools, run as their users run them: in an environment and in processes of their own."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
"""The interpreter of the environment that holds the peers."""
NUM_WORKERS = os.cpu_count() or 1
TIMEOUT_S = 600.0
"""Of a process of theirs; one that hangs counts as failed."""
NUM_FETCHING = 16
"""Threads of each process of img2dataset."""

_ENVIRONMENT = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
"""Nobody waits for an answer from the network, nor imports our modules for theirs."""


_JUICER = """
import sys, types
for name, words in (("imagededup.methods.cnn", "CNN"), ("imagededup.utils.models", "CustomModel")):
    sys.modules[name] = types.ModuleType(name)
    setattr(sys.modules[name], words, None)
from data_juicer.tools.process_data import main
main()
"""
"""`dj-process`, but that imagededup's neural hashes, which its operator does not use, are not imported: they want a
torchvision built for the very torch that is there, and seconds."""


class PeerMissing(Exception):
    """The peer is not in the environment, or it failed; the message says which, in one line."""


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder over HTTP on this machine, from threads of this process; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def addresses(base: str, names: Sequence[str]) -> list[str]:
    """The address of each file below `base`."""
    return [f"{base}/{urllib.parse.quote(name)}" for name in names]


def img2dataset(urls: Sequence[str], out: Path, longest_px: int, per_shard: int) -> float:
    """Fetch, hash, shrink to a longest side and pack into WebDataset shards; gives the seconds of the process.

    Raises:
        PeerMissing
    """
    lines = out.with_suffix(".txt")
    lines.write_text("\n".join(urls) + "\n", encoding="utf-8")
    options = {
        "url_list": lines,
        "input_format": "txt",
        "output_folder": out,
        "output_format": "webdataset",
        "resize_mode": "keep_ratio_largest",
        "image_size": longest_px,
        "resize_only_if_bigger": True,
        "compute_hash": "sha256",
        "processes_count": NUM_WORKERS,
        "thread_count": NUM_FETCHING,
        "number_sample_per_shard": per_shard,
    }
    return _run("img2dataset", [f"--{name}={value}" for name, value in options.items()], out.parent)[0]


def img2dataset_rows(out: Path) -> list[dict[str, Any]]:
    """What it says of each URL, in any order."""
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def data_juicer(
    paths: Sequence[Path], out: Path, operators: Sequence[Mapping[str, Any]], texts: Sequence[str] = ()
) -> tuple[float, int, str]:
    """Run operators over images on the disk, each with its text where texts are given.

    Returns the seconds of the process, the number of images kept, and its log.

    Raises:
        PeerMissing
    """
    lines, config, kept = out.with_suffix(".jsonl"), out.with_suffix(".json"), out / "kept.jsonl"
    texts = texts or [""] * len(paths)
    rows = [json.dumps({"text": text, "images": [str(path)]}) for text, path in zip(texts, paths, strict=True)]
    lines.write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = {
        "project_name": out.name,
        "dataset_path": str(lines),
        "export_path": str(kept),
        "np": NUM_WORKERS,
        "use_cache": False,
        "process": list(operators),
    }
    config.write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML too
    seconds, log = _run("python", ["-c", _JUICER, "--config", str(config)], out.parent)
    if not kept.is_file():
        raise PeerMissing(f"Data-Juicer wrote nothing: {_last_line(log)}")
    return seconds, sum(1 for line in kept.read_text(encoding="utf-8").splitlines() if line), log


def operator_seconds(log: str) -> float:
    """What Data-Juicer's log says its operators took, its start-up left out.

    Raises:
        PeerMissing: it says nothing.
    """
    found = re.findall(r"Done in ([\d.]+)s\. Left \d+ samples", log)
    if not found:
        raise PeerMissing(f"Data-Juicer named no time: {_last_line(log)}")
    return sum(map(float, found))


def script(source: str, arguments: Sequence[str]) -> Any:
    """What a script prints behind `RESULT `, run by the peers' interpreter.

    Raises:
        PeerMissing
    """
    _, log = _run("python", ["-c", source, *arguments], None)
    for line in log.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise PeerMissing(f"no result: {_last_line(log)}")


def _run(tool: str, arguments: Sequence[str], folder: Path | None) -> tuple[float, str]:
    path = Path(PEERS_PYTHON) if tool == "python" else Path(PEERS_PYTHON).with_name(tool)
    if not path.is_file():
        raise PeerMissing(f"no {tool} beside {PEERS_PYTHON}: make bench-peers-data")
    command = [str(path), *arguments]
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=_ENVIRONMENT, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"{tool} did not end in {TIMEOUT_S:g} s") from None
    seconds = time.perf_counter() - begun
    log = done.stdout + done.stderr
    if done.returncode:
        raise PeerMissing(f"{tool} failed: {_last_line(log)}")
    return seconds, log


def _last_line(log: str) -> str:
    return (log.strip().splitlines() or ["it says nothing"])[-1][:200]
