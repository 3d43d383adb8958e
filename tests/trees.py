"""Compare datasets byte for byte, and kill a build when it has got somewhere."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from commands.front_door import app
from schemas.files import TEMPORARY
from tests.processes import Python, run_python


def content(root: Path, folders: Sequence[str] = ("tables", "shards")) -> dict[str, str]:
    """sha256 of everything that a build promises to repeat: tables with their records, shards, indexes."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
    }


def count_published(root: Path) -> int:
    """Files that have got their name so far."""
    return sum(1 for folder in ("tables", "shards") for path in (root / folder).rglob("*") if _published(path))


def _published(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(TEMPORARY)


def sigma(
    *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    return run_python("-m", "sigma", *arguments, env=os.environ | {"COLUMNS": "200"} | (env or {}), timeout=timeout)


def sigma_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: what it refuses before it does anything takes a tenth of the time."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def start_sigma(*arguments: str | Path, **options: Any) -> Python:
    """Start the real command in a process of its own, which says nothing unless `options` give it files to write to."""
    return Python("-m", "sigma", *arguments, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options)


def kill_when(
    root: Path, num_published: int, arguments: Sequence[str | Path], timeout: float = 120, **options: Any
) -> bool:
    """Start sigma and send SIGKILL once that many files are published; False where it ended before."""
    process = start_sigma(*arguments, **options)
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if count_published(root) >= num_published:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    process.wait()
    return False
