"""How much memory a process may still take: what the machine has free, and what its control groups leave of it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path

GIB = 2**30


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping. Caches of files count as free, of the machine and of its groups."""
    import psutil

    return min([psutil.virtual_memory().available, *_left_by_groups(root)])


def require_memory(needed: int, what: str, mend: str) -> None:
    """Raise a ValueError where this machine has not that many bytes free. `what`: will take them; begins the message.
    `mend`: says what helps besides closing other programs; ends it."""
    if needed > (free := free_bytes()):
        raise ValueError(
            f"too little memory: {what} takes {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free; close other "
            f"programs, or {mend}"
        )


def give_back() -> None:
    """Hand memory that was freed to the machine: glibc keeps it for what this process takes next."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _left_by_groups(root: Path) -> Iterable[int]:
    """What each control group of this process, and each above it, leaves of its limit; versions 1 and 2 of Linux."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # no Linux
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = mounted / "memory" if controllers else mounted
        limit, used, cache = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        group = base / path.strip("/")
        for folder in (group, *group.parents):  # a container may not see its own group, but those above it
            if not folder.is_relative_to(base):
                break
            if (left := _left(folder, limit, used, cache)) is not None:
                yield left


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, most - taken + int(counts.get(cache, 0)))
    except (OSError, ValueError):
        return None  # it has no limit, which version 2 writes as `max`, or cannot be seen
