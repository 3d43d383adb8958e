"""Find the files that a path of the recipe means: a file, a folder of them, or a pattern, local or remote."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from curation.sources.item import SourceListing
from curation.sources.storage import RemoteError, filesystem, not_listed, patiently
from schemas.locations import is_remote
from schemas.reasons import FetchError

_INDEXED = {"http", "https", "hf"}
"""File systems that match patterns themselves: their folders are pages, or one answer holds all names."""
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_pattern(location: str) -> bool:
    """Whether a path is a pattern; the name of a local folder never is."""
    if not is_remote(location):
        return any(character in location for character in "*?[") and not Path(location).exists()
    return any(character in location for character in "*[")  # a `?` begins the query of a URL


def split_pattern(location: str) -> tuple[str, str]:
    """(the last folder before the first magic character, the rest)."""
    first = min(place for character in "*?[" if (place := location.find(character)) >= 0)
    root, _, _ = location[:first].rpartition("/")
    return root or "/", location[len(root) + 1 :]


def find_files(
    location: str, extensions: tuple[str, ...], what: str, listing: SourceListing | None = None
) -> list[str]:
    """The files of a folder (itself, not below it), a pattern with braces, `*`, `?` or `[`, or one file; sorted.

    Args:
        extensions: lower case, dot included; other files are left out.
        what: the word for such files in an error.
        listing: counts the hidden ones among them, which are left out unless they are named.

    Raises:
        ValueError: there is none.
    """
    files: list[str] = []
    for path in expand_braces(location):
        try:
            files += _files_at(path, extensions, listing)
        except (RemoteError, FileNotFoundError, NotADirectoryError) as error:
            raise not_listed(path, error) from None
    if not files:
        raise ValueError(
            f"{location}: no {what} found; name a {what} ({', '.join(extensions)}), a folder of them, or a pattern"
        )
    return files


def _files_at(path: str, extensions: tuple[str, ...], listing: SourceListing | None) -> list[str]:
    if is_pattern(path):
        root = split_pattern(path)[0]
        fs, pattern = filesystem(path)
        top = filesystem(root)[1].rstrip("/")
        found, failed = match_all(fs, pattern)
        for error in failed.values():
            raise error
        names = [name.removeprefix(top + "/") for name in found]
    elif path.lower().endswith(extensions) and (is_remote(path) or not Path(path).is_dir()):
        return [path]
    else:
        root = path
        fs, folder = filesystem(path)
        index = "/" if path.startswith("http") else ""  # the address of an index page ends with a slash
        listed = patiently(lambda: fs.ls(folder + index, detail=False))
        names = [name.rstrip("/").rpartition("/")[2] for name in listed]
    found_names = [name for name in sorted(names) if name.lower().endswith(extensions)]
    shown = [name for name in found_names if "/." not in f"/{name}" or "/." in path[len(root.rstrip("/")) :]]
    if listing is not None:
        listing.count("hidden", len(found_names) - len(shown))
    return [f"{root.rstrip('/')}/{name}" for name in shown]


def match_all(fs: AbstractFileSystem, pattern: str) -> tuple[dict[str, Any], dict[str, RemoteError]]:
    """The paths that a pattern matches with fsspec's facts, and the folders that might hold more but cannot be listed.
    `**` does not follow links to folders. fsspec's own walk leaves such folders out silently. Raises ValueError: `**`
    together with something else between two slashes. Raises RemoteError: of a file system that has its own way of
    matching."""
    parts = pattern.split("/")
    if wrong := [part for part in parts if "**" in part and part != "**"]:
        raise ValueError(f"{pattern}: ** must be alone between two slashes; write {wrong[0].replace('**', '*')}")
    if not _INDEXED.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
        return patiently(lambda: fs.glob(pattern, detail=True)), {}
    num_plain = next(place for place, part in enumerate(parts) if any(character in part for character in "*?["))
    found: dict[str, Any] = {}
    failed: dict[str, RemoteError] = {}
    _match(fs, "/".join(parts[:num_plain]) or "/", parts[num_plain:], found, failed)
    return found, failed


def _match(
    fs: AbstractFileSystem, folder: str, parts: list[str], found: dict[str, Any], failed: dict[str, RemoteError]
) -> None:
    try:
        entries = patiently(lambda: fs.ls(folder, detail=True))
    except RemoteError as error:
        if error.reason is not FetchError.NOT_FOUND:  # gone meanwhile: it holds nothing
            failed[folder] = error
        return
    finally:
        fs.invalidate_cache()  # fsspec would keep every folder it has seen
    any_depth = parts[0] == "**"
    part, *rest = parts[1:] if any_depth and len(parts) > 1 else parts
    for entry in entries:
        path = entry["name"].rstrip("/")
        if path == folder.rstrip("/"):
            continue
        is_folder = entry["type"] == "directory"
        if fnmatchcase(path.rpartition("/")[2], part):
            if not rest:
                found[path] = entry
            elif is_folder:
                _match(fs, path, rest, found, failed)
        if any_depth and is_folder and not entry.get("islink"):
            _match(fs, path, parts, found, failed)


def expand_braces(pattern: str) -> list[str]:
    """`{00..03}` counts, `{a,b}` names: as a shell has it."""
    pieces: list[list[str]] = []
    end = 0
    for match in _BRACES.finditer(pattern):
        pieces += [[pattern[end : match.start()]], _alternatives(match[1])]
        end = match.end()
    return ["".join(chosen) for chosen in product(*pieces, [pattern[end:]])]


def _alternatives(inner: str) -> list[str]:
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if counted is None:
        return inner.split(",") if "," in inner else ["{" + inner + "}"]
    first, last = int(counted[1]), int(counted[2])
    return [str(number).zfill(len(counted[1])) for number in range(first, last + 1)]
