"""Find the files that a path of the recipe means: a file, a folder of them, or a pattern, local or remote."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from curation.sources.storage import RemoteError, filesystem, patiently
from schemas.locations import is_remote

_BRACES = re.compile(r"\{([^{}]*)\}")


def is_pattern(location: str) -> bool:
    """Whether a path is a pattern; a local folder that has such a name is none."""
    if not is_remote(location):
        return any(character in location for character in "*?[") and not Path(location).exists()
    return any(character in location for character in "*[")  # a `?` begins the query of a URL


def split_pattern(location: str) -> tuple[str, str]:
    """(the last folder before the first magic character, the rest)."""
    first = min(place for character in "*?[" if (place := location.find(character)) >= 0)
    root, _, _ = location[:first].rpartition("/")
    return root or "/", location[len(root) + 1 :]


def find_files(location: str, extensions: tuple[str, ...], what: str) -> list[str]:
    """The files of a folder (itself, not below it), a pattern with braces, `*`, `?` or `[`, or one file; sorted.

    Args:
        extensions: lower case, dot included; others are not looked at.
        what: what the files are called in an error.

    Raises:
        ValueError: there is none.
    """
    files: list[str] = []
    for path in expand_braces(location):
        try:
            files += _files_at(path, extensions)
        except (RemoteError, FileNotFoundError, NotADirectoryError) as error:
            why = error.strerror or "not found"
            raise ValueError(f"{path}: cannot be listed ({why}); check the spelling and the rights") from None
    if not files:
        raise ValueError(
            f"{location}: no {what} found; name a {what} ({', '.join(extensions)}), a folder of them, or a pattern"
        )
    return files


def _files_at(path: str, extensions: tuple[str, ...]) -> list[str]:
    if is_pattern(path):
        root = split_pattern(path)[0]
        fs, pattern = filesystem(path)
        top = filesystem(root)[1].rstrip("/")
        names = [name.removeprefix(top + "/") for name in patiently(lambda: fs.glob(pattern))]
    elif path.lower().endswith(extensions) and (is_remote(path) or not Path(path).is_dir()):
        return [path]
    else:
        root = path
        fs, folder = filesystem(path)
        index = "/" if path.startswith("http") else ""  # an index page is asked for with its slash
        found = patiently(lambda: fs.ls(folder + index, detail=False))
        names = [name.rstrip("/").rpartition("/")[2] for name in found]
    return [f"{root.rstrip('/')}/{name}" for name in sorted(names) if name.lower().endswith(extensions)]


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
