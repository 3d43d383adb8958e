"""Ten thousand files gone bad through ingest: none may crash it, hang it or take a gigabyte, and each has an outcome.

`python -m benchmarks.mutations [COUNT] [SEED]` runs them in this process under those limits and prints the outcomes;
the process dies at the first file that breaks one, after naming it.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curation.ingest.ingest import ingest_row
from schemas.reasons import ImageError
from schemas.recipe import Ingest
from tests.mutants import mutants

COUNT = 10_000
LIMIT_S = 5.0
LIMIT_BYTES = 2**30
INGEST = Ingest(proxy_px=64, max_megapixels=50)
"""A picture takes up to 4 bytes per pixel a few times over, so the limit of pixels is what bounds the memory."""


def limit_this_process() -> None:
    """A gigabyte more than now; what a file takes beyond it raises MemoryError, which nothing here catches. Arrow's
    allocator takes addresses for a gigabyte when it is first asked, so it is asked before."""
    pa.array([0])
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends a process that hangs in a decoder's C code too


def survey(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Ingest every mutant; how many ended with which outcome, `picture` or a reason.

    Raises:
        AssertionError: a row that is neither a picture nor has a reason and a detail.
    """
    outcomes = Counter[str]()
    for number, (name, data) in enumerate(mutants(count, seed)):
        print(name, file=sys.stderr, flush=True)
        (folder / "image").write_bytes(data)
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        outcomes[_outcome(folder, number)] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    return dict(sorted(outcomes.items()))


def _outcome(folder: Path, number: int) -> str:
    listed = dict.fromkeys(("byte_offset", "num_bytes", "sidecar", "raw_caption", "url", "license"))
    listed |= {"row_id": number, "source": str(folder), "source_name": "mutants", "member": "image"}
    proxy, image = ingest_row(listed, INGEST)
    assert proxy["row_id"] == image["row_id"] == number
    assert proxy["image_id"] == image["image_id"]
    if "reason" not in image:
        assert proxy["jpeg"].startswith(b"\xff\xd8")
        return "picture"
    assert "jpeg" not in proxy
    assert image["reason"] in set(ImageError)
    assert image["detail"]
    assert not re.search(r"0x[0-9a-f]{6}", image["detail"]), image["detail"]  # an address differs from run to run
    assert str(folder) not in image["detail"]
    return str(image["reason"])


def run(count: int, seed: int = 0) -> dict[str, int]:
    """The survey in a process of its own.

    Raises:
        RuntimeError: it died; the message names the file that it died of.
    """
    command = [sys.executable, "-m", "benchmarks.mutations", str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


def mutated_files(folder: Path) -> Iterator[str]:
    """Files per second, and what became of them."""
    begun = time.perf_counter()
    outcomes = run(COUNT)
    rate = COUNT / (time.perf_counter() - begun)
    assert sum(outcomes.values()) == COUNT
    told = ", ".join(f"{num} {name}" for name, num in sorted(outcomes.items(), key=lambda each: -each[1]))
    yield f"| {COUNT:,} mutated files | {rate:,.0f} files/s | {told} | no crash, no hang, under 1 GiB |"


BENCHMARKS = (mutated_files,)


def main() -> None:
    """The survey under its limits."""
    count, seed = int((sys.argv[1:2] or [str(COUNT)])[0]), int((sys.argv[2:3] or ["0"])[0])
    with tempfile.TemporaryDirectory() as folder:
        limit_this_process()
        print(json.dumps(survey(Path(folder), count, seed)))


if __name__ == "__main__":
    main()
