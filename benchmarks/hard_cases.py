"""What becomes of hard files: ours, img2dataset and Data-Juicer, judged by the pixels that each hands on."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from benchmarks.curation_speed import Times
from benchmarks.peers import PeerMissing, addresses, data_juicer, img2dataset, img2dataset_rows, script, served
from commands import order
from curation import build as pipeline
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from tests.hard_cases import PIXELS, REASONS, SIZE, TOLERANCE, furthest
from tests.photos import write_files

LONGEST_PX = 320
RIGHT = "right"

Answer = Image.Image | str
"""A picture that was handed on, or the words with which the file was refused."""

_LOAD = """
import json, sys
from pathlib import Path
from data_juicer.utils.mm_utils import load_image
answers = {}
for number, path in enumerate(json.loads(sys.argv[1])):
    try:
        image = load_image(path)
        image.thumbnail((int(sys.argv[3]), int(sys.argv[3])))
        image.save(Path(sys.argv[2]) / f"{number}.png")
    except Exception as error:
        answers[path] = f"{type(error).__name__}: {error}"
    else:
        answers[path] = number
print("RESULT " + json.dumps(answers))
"""
"""Data-Juicer writes no pictures: what its operators look at is what its `load_image` gives them."""


def hard_cases(folder: Path) -> Iterator[str]:
    """One row per case on which somebody is wrong; the others are named below the table."""
    names = [*PIXELS, *REASONS]
    photos = write_files(folder / "photos", {name: data for name, (data, *_) in (PIXELS | REASONS).items()})
    answers: dict[str, Mapping[str, Answer]] = {}
    notes = []
    ways: tuple[tuple[str, Callable[[Path, Path], Mapping[str, Answer]]], ...] = (
        ("ours", _ours),
        ("img2dataset", _img2dataset),
        ("Data-Juicer", _juicer),
    )
    for number, (who, answer) in enumerate(ways):
        out = folder / str(number)
        out.mkdir()
        try:
            answers[who] = answer(photos, out)
        except PeerMissing as error:
            notes.append(f"{who}: skipped: {error}")
    verdicts = {name: [judge(name, answers[who][name]) for who in answers] for name in names}
    yield f"\n| case | {' | '.join(answers)} |\n|---|{'---|' * len(answers)}"
    for name, found in verdicts.items():
        if set(found) != {RIGHT}:
            yield f"| {name} | {' | '.join(found)} |"
    rights = [sum(found[who] == RIGHT for found in verdicts.values()) for who in range(len(answers))]
    yield f"| right, of {len(names)} | {' | '.join(map(str, rights))} |"
    yield "\nAll right: " + ", ".join(f"`{name}`" for name, found in verdicts.items() if set(found) == {RIGHT}) + "."
    if "Data-Juicer" in answers:
        notes.append(_in_one_run(photos, folder, names))
    yield from (f"\n{note}" for note in notes)


def judge(name: str, answer: Answer) -> str:
    """`right`, or what is wrong with it."""
    if name in REASONS:
        wanted = REASONS[name][1]
        return RIGHT if isinstance(answer, str) else f"**accepted**, it is {wanted.replace('_', ' ')}"
    if isinstance(answer, str):
        return f"**refused**: {answer}"
    wanted_size = (LONGEST_PX, LONGEST_PX * SIZE[1] // SIZE[0])
    if answer.size != wanted_size:
        return "**sideways**" if answer.size == wanted_size[::-1] else f"**{answer.width} x {answer.height} px**"
    picture = answer.convert("RGB")
    off = furthest(picture, PIXELS[name][1])
    return RIGHT if off <= TOLERANCE else f"**wrong pixels**, up to {off} of 255 off"


def _ours(photos: Path, out: Path) -> Mapping[str, Answer]:
    recipe = DataRecipe.from_mapping(
        {
            "images": str(photos),
            "out": str(out / "dataset"),
            "ingest": {"proxy_px": LONGEST_PX, "proxy_quality": 95, "max_megapixels": 50},
            "run": {"runner": "local"},
        }
    )
    pipeline.build(recipe, [step for step in order.pipeline(recipe) if step.job == "ingest"], Times())
    dataset = Dataset(out / "dataset")
    answers: dict[str, Answer] = {}
    for number in dataset.held().parts("images"):
        images = dataset.read_part("images", number).to_pylist()
        for image, proxy in zip(images, dataset.read_part("proxies", number)["jpeg"].to_pylist(), strict=True):
            refused = f"{image['reason']}: {image['detail']}"
            answers[image["member"]] = refused if proxy is None else Image.open(io.BytesIO(proxy))
    return answers


def _img2dataset(photos: Path, out: Path) -> Mapping[str, Answer]:
    names = [*PIXELS, *REASONS]
    with served(photos) as base:
        urls = addresses(base, names)
        img2dataset(urls, out / "shards", LONGEST_PX, len(urls))
    pictures: dict[str, Image.Image] = {}
    for path in (out / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    pictures[member.name[:-4]] = Image.open(io.BytesIO(tar.extractfile(member).read()))  # type: ignore
    rows = {row["url"]: row for row in img2dataset_rows(out / "shards")}
    return {
        name: pictures[rows[url]["key"]] if rows[url]["status"] == "success" else rows[url]["error_message"]
        for name, url in zip(names, urls, strict=True)
    }


def _juicer(photos: Path, out: Path) -> Mapping[str, Answer]:
    names = [*PIXELS, *REASONS]
    paths = [str(photos / name) for name in names]
    loaded = script(_LOAD, [json.dumps(paths), str(out), str(LONGEST_PX)])
    return {
        name: loaded[path] if isinstance(loaded[path], str) else Image.open(out / f"{loaded[path]}.png")
        for name, path in zip(names, paths, strict=True)
    }


def _in_one_run(photos: Path, folder: Path, names: list[str]) -> str:
    """What its command keeps of all the files together, and of the good ones alone, with its defaults."""
    operators = [{"image_shape_filter": {"min_width": 1, "min_height": 1}}]
    kept = []
    for label, chosen in (("all", names), ("good", list(PIXELS))):
        try:
            kept.append(f"{data_juicer([photos / name for name in chosen], folder / label, operators)[1]}")
        except PeerMissing as error:
            kept.append(f"none ({error})")
    return (
        f"Data-Juicer's image_shape_filter with its defaults keeps {kept[0]} of all {len(names)} files in one run, "
        f"and {kept[1]} of the {len(PIXELS)} good ones alone."
    )


BENCHMARKS = (hard_cases,)
