"""The files that prompts come in, each read into what it holds at every place, and how a kind of file is known."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from schemas.files import address_of, entries_in, is_file, is_folder, read_file, shown_place
from schemas.shard_index import INDEX_FILE, ShardIndex
from schemas.texts import NotText, encoding_of, parse_json
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.data.tars import Copies

PROMPTS_FILE, MJHQ_FILE = "prompts.jsonl", "meta_data.json"
GENEVAL_FILE, DPG_FILE, COMPBENCH_END = "evaluation_metadata.jsonl", "dpg_bench.csv", "_val.txt"
ID_DIGITS = 16

_COMPBENCH = ("color", "shape", "texture", "spatial", "3d_spatial", "non_spatial", "numeracy", "complex")
_LINE_END = re.compile(r"\r\n|\r|\n")


class Found(NamedTuple):
    """What a source has at one place, as it was read."""

    place: str
    prompt: Any
    prompt_id: Any = None
    category: Any = None
    reference: Any = None


def digest(text: str) -> str:
    """The id of a prompt that comes without one: a hash of its text, whatever white space is between its words."""
    same = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(same.encode()).hexdigest()[:ID_DIGITS]


def text_of(path: Path) -> str:
    """A file as text: UTF-8, with or without a byte order mark, or what another such mark says."""
    shown = shown_place(path)
    try:
        data = read_file(path)
    except OSError as error:
        raise ValueError(f"{shown}: cannot be read: {error.strerror or error}") from None
    encoding = encoding_of(data[:4])
    try:
        return data.decode(encoding if encoding in ("utf-8-sig", "utf-16", "utf-32") else "utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(error.encoding, "replace")
        line = len(_LINE_END.split(before))
        byte = f"0x{data[error.start]:02x}" if error.start < len(data) else "its end"
        raise ValueError(f"{shown}: line {line} is not {error.encoding} ({byte}); save the file as UTF-8") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a text file, and its place."""
    lines = _LINE_END.split(text_of(path))
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, start=1):
        yield f"line {number}", line


def json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object of a JSONL file, and its place; blank lines are passed over."""
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except NotText as error:
            raise ValueError(f"{shown_place(path)}: {place} {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{shown_place(path)}: {place} is no JSON object")
        yield place, row


def _read_rows(path: Path, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> Iterator[Found]:
    for place, row in rows:
        cells = {str(name).strip().lower(): value for name, value in row.items()}
        if twins := sorted(cells if len(cells) < len(row) else ()):
            raise ValueError(f"{shown_place(path)}: {place} has two names that are one: {', '.join(twins)}")
        if "prompt" not in cells:
            raise ValueError(f"{shown_place(path)}: {place} has no prompt; it has {', '.join(cells) or 'nothing'}")
        given = next((cells[name] for name in ("prompt_id", "id") if cells.get(name) not in (None, "")), None)
        yield Found(place, cells["prompt"], given, cells.get("category"), cells.get("reference_image_id"))


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = text_of(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    begins, names = 1, list[str]()
    try:
        names = [name.strip() for name in next(reader, [])]
        if twins := sorted({name for name in names if name and names.count(name) > 1}):
            raise csv.Error(f"two columns of the name {twins[0]!r}")
        begins = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) > len(names):
                    raise csv.Error(f"{len(cells)} cells for {len(names)} columns")
                yield f"line {begins}", dict(zip(names, cells, strict=False))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{shown_place(path)}: line {begins} is not CSV ({error}); a text with a comma or a quote needs "
            "quotes around it"
        ) from None


def _delimiter(text: str) -> str:
    return "\t" if "\t" in _LINE_END.split(text, maxsplit=1)[0] else ","


def _read_text(path: Path) -> Iterator[Found]:
    return (Found(place, line) for place, line in _lines(path))


def _read_mjhq(path: Path) -> Iterator[Found]:
    path = file_of(path, MJHQ_FILE)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(made := dict(pairs)) < len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            first, second = [place + 1 for place, other in enumerate(names) if other == name][:2]
            raise ValueError(f"entry {first} and entry {second} have the same name, {name!r}")
        return made

    try:
        entries = json.loads(text_of(path), object_pairs_hook=once)
        if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
            raise ValueError("must be an object of ids, each with its prompt and category")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown_place(path)}: cannot be read as MJHQ's: {error}") from None
    for name, entry in entries.items():
        yield Found(f"entry {name!r}", entry.get("prompt"), name, entry.get("category"), name)


def _read_geneval(path: Path) -> Iterator[Found]:
    path = file_of(path, GENEVAL_FILE)
    return (
        one._replace(category=row.get("tag"))
        for one, (_, row) in zip(_read_rows(path, json_lines(path)), json_lines(path), strict=True)
    )


def _read_dpg(path: Path) -> Iterator[Found]:
    folder = path / "prompts" if is_folder(path / "prompts") else path
    if is_file(folder):
        raise ValueError(f"{shown_place(path)}: is a file; name the folder of DPG-Bench's prompts/*.txt")
    for name in _names(folder, ".txt"):
        yield Found(name, text_of(folder / name), name.removesuffix(".txt"))


def _read_compbench(path: Path) -> Iterator[Found]:
    files = [path] if is_file(path) else [path / name for name in _names(path, COMPBENCH_END)]
    for file in files:
        category = file.name.removesuffix(COMPBENCH_END)
        for place, line in _lines(file):
            text = line.strip()
            name = f"{category}-{digest(text)}" if text else None
            yield Found(f"{file.name} {place}", text, name, category)


def _read_dataset(path: Path) -> Iterator[Found]:
    rows = Selection(ShardIndex(path / "shards"))
    address = address_of(path)
    reader = ShardReader(path / "shards", rows, copies=None if address is None else Copies.of(address, path))
    try:
        for number in range(len(reader)):
            name = reader.entry(number).image_id
            yield Found(f"sample {number + 1}", reader.captions(number).mixed, name, None, name)
    finally:
        reader.close()


def _read_set(path: Path) -> Iterator[Found]:
    return _read_rows(path, json_lines(path / PROMPTS_FILE))


def file_of(path: Path, name: str) -> Path:
    """The file of that name in a folder, or in its folder `prompts`; a file is taken as it is."""
    if not is_folder(path):
        return path
    inside = path / "prompts" / name
    return inside if is_file(inside) else path / name


def _names(folder: Path, end: str) -> list[str]:
    return sorted(name for name in entries_in(folder) if name.endswith(end) and not name.startswith("."))


def kinds_of(path: Path) -> list[str]:
    """The kinds that a file or folder may be of, by what it holds. Raises ValueError: it is not there, or is no
    text."""
    if is_file(path):
        return _kinds_of_file(path)
    if not is_folder(path):
        raise ValueError(f"{shown_place(path)}: no such file or folder")
    if is_file(path / "shards" / INDEX_FILE) or is_folder(path / "tables"):
        return ["set" if is_file(path / PROMPTS_FILE) else "dataset"]  # a set has MJHQ's file too
    found = {
        "mjhq": is_file(path / MJHQ_FILE),
        "geneval": is_file(file_of(path, GENEVAL_FILE)),
        "dpg": _is_dpg(path),
        "compbench": bool(_names(path, COMPBENCH_END)),
    }
    return [kind for kind, is_it in found.items() if is_it]


def _is_dpg(path: Path) -> bool:
    """Whether a folder has one prompt a file; other benchmarks have files of many, a line each, in `prompts` too."""
    texts = _names(path / "prompts", ".txt") if is_folder(path / "prompts") else []
    if not texts or is_file(path / DPG_FILE):
        return bool(texts)
    return all(len(_LINE_END.split(text_of(path / "prompts" / name).strip())) <= 1 for name in texts)


def _kinds_of_file(path: Path) -> list[str]:
    text = "" if path.suffix == ".json" else text_of(path)
    first = next((line for line in _LINE_END.split(text) if line.strip()), "")
    try:
        row = parse_json(first)
    except NotText:
        row = None
    header = [cell.strip().lower() for cell in first.split(_delimiter(first))]
    has_columns = len(header) > 1 and "prompt" in header
    is_compbench = path.name in {f"{name}{COMPBENCH_END}" for name in _COMPBENCH}
    is_geneval = isinstance(row, dict) and {"tag", "include"} <= row.keys()
    found = {
        "mjhq": path.suffix == ".json",
        "geneval": is_geneval,
        "jsonl": (path.suffix == ".jsonl" or isinstance(row, dict)) and not is_geneval,
        "csv": path.suffix in (".csv", ".tsv") or (has_columns and row is None),
        "compbench": is_compbench,
        "text": path.suffix == ".txt" and not is_compbench,
    }
    return [kind for kind, is_it in found.items() if is_it]


READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    "dataset": _read_dataset,
    "set": _read_set,
    "text": _read_text,
    "jsonl": lambda path: _read_rows(path, json_lines(path)),
    "csv": lambda path: _read_rows(path, _csv_rows(path)),
    "mjhq": _read_mjhq,
    "geneval": _read_geneval,
    "dpg": _read_dpg,
    "compbench": _read_compbench,
}
"""Kind of source -> what reads it."""
