"""Every listed file becomes one row of proxies and one of images, in order, with a picture or a reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.ingest.headers import header_row
from curation.ingest.ingest import encode_proxy, map_job
from curation.sources import read_original
from engine.ahead import ahead
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.bombs import HOSTILE
from tests.building import build, recipe, write_pictures
from tests.building import rows as rows_of
from tests.photos import (
    HEIC,
    HTML,
    animation,
    corners,
    encode,
    listing_table,
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    quadrants,
    swapped_primaries,
    write_files,
)

COFFEE = encode(photo("coffee.png"), "JPEG", quality=92)
HIDDEN = quadrants().convert("RGBA")
HIDDEN.putalpha(Image.new("L", HIDDEN.size, 0))

TORTURE: dict[str, tuple[bytes, str | None]] = {
    "01_exif.jpg": (encode(oriented(quadrants(), 6), "JPEG", exif=orientation_tag(6)), None),
    "02_icc.png": (encode(quadrants(), "PNG", icc_profile=swapped_primaries()), None),
    "03_cmyk.jpg": (encode(quadrants().convert("CMYK"), "JPEG"), None),
    "04_rgba.png": (encode(HIDDEN, "PNG"), None),
    "05_grey16.png": (encode(Image.fromarray(np.full((20, 30), 32896, np.uint16)), "PNG"), None),
    "06_animated.gif": (animation("GIF"), "animated"),
    "07_animated.webp": (animation("WEBP"), "animated"),
    "08_animated.png": (animation("PNG"), "animated"),
    "09_cut.jpg": (COFFEE[: len(COFFEE) // 2], "truncated"),
    "10_cut.png": (encode(photo("coffee.png"), "PNG")[:100_000], "truncated"),
    "11_empty.jpg": (b"", "empty"),
    "12_page.jpg": (HTML, "not_an_image"),
    "13_bomb.png": (png_bomb(), "too_many_pixels"),
    "14.avif": (encode(photo("chelsea.png"), "AVIF"), None),
    "15_phone.HEIC": (HEIC, "unsupported"),
    "16_panorama.jpg": (encode(Image.new("RGB", (2560, 64)), "JPEG"), None),
    "17_is_webp.jpg": (encode(photo("chelsea.png"), "WEBP"), None),
    "18.dots.in.name.jpg": (COFFEE, None),
    "19_größe_写真.jpg": (COFFEE, None),
    "20_pages.tif": (animation("TIFF"), "animated"),
    "21_palette.png": (encode(quadrants().convert("P"), "PNG", transparency=0), None),
    "22_one_bit.png": (encode(quadrants().convert("1"), "PNG"), None),
}


def recipe_for(folder: Path, **sections: dict[str, object]) -> DataRecipe:
    """A recipe with small proxies."""
    return DataRecipe.from_mapping(
        {"images": str(folder), "out": str(folder.parent / "out"), "ingest": {"proxy_px": 128}} | sections
    )


def run(folder: Path, recipe: DataRecipe | None = None) -> tuple[pa.Table, pa.Table]:
    """`proxies` and `images` of a folder."""
    tables = map_job(recipe or recipe_for(folder)).build()({"listing": listing_table(folder)}, lambda n: None)
    return tables["proxies"], tables["images"]


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, pa.Table]:
    """The tables of the torture set."""
    files = {name: data for name, (data, _) in TORTURE.items()}
    return run(write_files(tmp_path_factory.mktemp("torture"), files))


def test_every_file_is_a_row_with_the_reason_it_should_have(torture: tuple[pa.Table, pa.Table]) -> None:
    proxies, images = torture
    assert (proxies.schema, images.schema) == (schema_of("proxies"), schema_of("images"))
    assert images["row_id"].to_pylist() == proxies["row_id"].to_pylist() == list(range(len(TORTURE)))
    found = dict(zip(images["member"].to_pylist(), images["reason"].to_pylist(), strict=True))
    assert found == {name: reason for name, (_, reason) in TORTURE.items()}


def test_bad_files_have_ids_from_their_bytes(torture: tuple[pa.Table, pa.Table]) -> None:
    proxies, images = torture
    for row in images.to_pylist():
        data = TORTURE[row["member"]][0]
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["image_id"] == row["sha256"][:32]
        assert row["num_bytes"] == len(data)
        assert (row["reason"] is None) == (row["detail"] is None)
    assert proxies["image_id"].to_pylist() == images["image_id"].to_pylist()


def test_only_a_picture_has_a_proxy(torture: tuple[pa.Table, pa.Table]) -> None:
    proxies, images = torture
    for proxy, image in zip(proxies.to_pylist(), images.to_pylist(), strict=True):
        assert (proxy["jpeg"] is not None) == (image["reason"] is None), image["member"]
        if proxy["jpeg"] is None:
            continue
        picture = Image.open(io.BytesIO(proxy["jpeg"]))
        assert picture.size == (proxy["width"], proxy["height"])
        assert max(picture.size) == min(128, max(image["width"], image["height"]))
        assert (picture.format, picture.mode) == ("JPEG", "RGB")
        assert not {"exif", "icc_profile", "comment"} & set(picture.info)


def test_columns_of_the_hard_cases(torture: tuple[pa.Table, pa.Table]) -> None:
    rows = {row["member"]: row for row in torture[1].to_pylist()}
    jpeg = {row["row_id"]: row["jpeg"] for row in torture[0].to_pylist()}

    def pixels(member: str) -> Image.Image:
        return Image.open(io.BytesIO(jpeg[rows[member]["row_id"]]))

    exif = rows["01_exif.jpg"]
    assert (exif["width"], exif["height"], exif["exif_orientation"]) == (64, 32, 6)
    assert rows["02_icc.png"]["icc"] is True
    assert np.allclose(corners(pixels("02_icc.png"))[0], (0, 255, 0), atol=12)
    assert rows["03_cmyk.jpg"]["mode"] == "CMYK"
    assert rows["04_rgba.png"]["alpha"] == 1.0
    assert pixels("04_rgba.png").getextrema() == ((255, 255),) * 3
    assert pixels("05_grey16.png").getpixel((5, 5)) == (128, 128, 128)
    assert rows["06_animated.gif"]["frames"] == 3
    assert rows["13_bomb.png"]["width"] == 20_000
    assert rows["14.avif"]["format"] == "AVIF"
    assert rows["17_is_webp.jpg"]["format"] == "WEBP"
    assert rows["18.dots.in.name.jpg"]["alpha"] is None


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    folder = write_files(tmp_path / "in", {f"{n:02}.jpg": COFFEE[: len(COFFEE) - n // 3] for n in range(9)})
    alone = run(folder, recipe_for(folder, run={"threads": 1}))
    together = run(folder, recipe_for(folder, run={"threads": threads}))
    assert alone[0].equals(together[0])
    assert alone[1].equals(together[1])
    assert alone[1]["reason"].to_pylist() == [None] * 3 + ["truncated"] * 6


def test_captions(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path / "in",
        {
            "a.jpg": COFFEE,
            "a.txt": "\ufeff  A cup. \n".encode(),
            "b.jpg": COFFEE,
            "b.json": json.dumps({"text": "Tea", "url": "http://x/b.jpg", "license": "CC0"}).encode(),
            "c.jpg": COFFEE,
            "c.jpg.txt": b"bad \xff byte",
            "d.jpg": COFFEE,
            "d.txt": b"beside",
            "e.jpg": COFFEE,
            "e.json": b"[not json",
            "f.jpg": COFFEE,
            "f.json": b'{"url": "http://x/f.jpg"}',
            "f.txt": b"words of f",
            "g.jpg": b"",
            "g.txt": b"of a broken image",
            "h.jpg": COFFEE,
            "h.txt": b" \n",
            "captions.csv": b"file_name,caption,license\nd.jpg,from the table,MIT\n",
        },
    )
    _, images = run(folder)
    found = [(row["raw_caption"], row["url"], row["license"]) for row in images.to_pylist()]
    assert found == [
        ("A cup.", None, None),
        ("Tea", "http://x/b.jpg", "CC0"),
        ("bad \ufffd byte", None, None),
        ("from the table", None, "MIT"),
        (None, None, None),
        ("words of f", "http://x/f.jpg", None),
        ("of a broken image", None, None),
        (None, None, None),
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a.jpg": COFFEE, "b.jpg": COFFEE})
    (folder / "c.jpg").symlink_to("nowhere.jpg")
    table = listing_table(folder)
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").mkdir()
    images = map_job(recipe_for(folder)).build()({"listing": table}, lambda n: None)["images"]
    rows = [(row["reason"], row["detail"], row["image_id"]) for row in images.to_pylist()]
    assert rows[1:] == [
        ("unreadable", "a folder that cannot be listed", None),
        ("unreadable", "No such file or directory", None),
    ]
    assert rows[0][0] is None


def test_bytes_inside_a_container(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a.jpg": b"before" + COFFEE + b"after"})
    listing = listing_table(folder).to_pylist()
    listing[0] |= {"byte_offset": 6, "num_bytes": len(COFFEE)}
    table = pa.Table.from_pylist(listing, schema=listing_table(folder).schema)
    images = map_job(recipe_for(folder)).build()({"listing": table}, lambda n: None)["images"]
    assert images["sha256"].to_pylist() == [hashlib.sha256(COFFEE).hexdigest()]


def test_proxies_of_the_same_pixels_are_the_same_bytes() -> None:
    picture = photo("chelsea.png")
    picture_with_metadata = picture.copy()
    picture_with_metadata.info["comment"] = b"hello"
    assert encode_proxy(picture, 90) == encode_proxy(picture.copy(), 90)
    assert len(encode_proxy(picture, 50)) < len(encode_proxy(picture, 90))


def test_an_empty_part(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a.jpg": COFFEE})
    none = listing_table(folder).slice(0, 0)
    tables = map_job(recipe_for(folder)).build()({"listing": none}, lambda n: None)
    assert (tables["proxies"].num_rows, tables["images"].num_rows) == (0, 0)


def test_the_stage_names_all_it_depends_on(tmp_path: Path) -> None:
    job = map_job(recipe_for(tmp_path, run={"threads": 7}))
    assert (job.job, job.inputs, job.outputs) == ("ingest", ("listing",), ("proxies", "images"))
    assert job.knobs == {"ingest.proxy_px": 128, "ingest.proxy_quality": 90, "ingest.max_megapixels": 300.0}


def test_ahead_keeps_order_and_a_bound() -> None:
    begun: list[int] = []

    def square(number: int) -> int:
        begun.append(number)
        return number * number

    results = ahead(square, range(100), threads=3)
    assert [next(results), next(results)] == [0, 1]
    assert len(begun) <= 2 + 6
    assert list(results) == [n * n for n in range(2, 100)]


def test_ahead_raises_where_the_result_was_due() -> None:
    results = ahead(lambda n: 1 // (2 - n), range(100), threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("decoder", ["PIL.ImageFile.ImageFile.load", "simplejpeg.decode_jpeg"])
def test_running_out_of_memory_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    data = encode(photo("coffee.png"), "PNG") if decoder.startswith("PIL") else COFFEE
    folder = write_files(tmp_path / "in", {"a.jpg": data})

    def exhausted(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoder, exhausted)
    with pytest.raises(MemoryError) as caught:
        run(folder)
    assert caught.value.__notes__ == ["image: a.jpg"]


def test_files_that_never_end_are_rows_and_texts_outside_the_folder_are_no_captions(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_pictures(folder, [(20, 10)] * 6, captions=False)
    (tmp_path / "secret").write_text("a text of this machine")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 << 30)
    (folder / "huge.jpg").hardlink_to(tmp_path / "huge")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "pipe.jpg").symlink_to("../pipe")
    (folder / "out.jpg").symlink_to("../secret")
    (folder / "000.txt").symlink_to("../secret")
    (folder / "001.txt").symlink_to("../pipe")
    (folder / "002.txt").hardlink_to(tmp_path / "huge")
    (folder / "003.json").write_text("{}")  # then the text of the same name is looked for
    (folder / "003.txt").symlink_to("../secret")
    (folder / "003.caption").write_text("of kohya")
    (folder / "004.txt").symlink_to("text")
    (folder / "text").write_bytes(b"\xff\xfeA\0 \0k\0i\0t\0e\0")
    (folder / "005.json").write_bytes(b'{"id": ' + b"7" * 5000 + b', "caption": ["caf\xe9 at night"]}')
    dataset, _ = build(recipe(folder, tmp_path / "ds"), upto="ingest")
    images = {row["member"]: row for row in rows_of(dataset, "images")}
    assert {name: row["raw_caption"] for name, row in images.items() if row["raw_caption"]} == {
        "003.jpg": "of kohya",
        "004.jpg": "A kite",
        "005.jpg": "café at night",
    }
    assert {name: (row["reason"], row["detail"]) for name, row in images.items() if row["reason"]} == {
        "huge.jpg": ("unreadable", "107,374,182,400 bytes or more, of which 2,400,000,000 at most are read"),
        "out.jpg": (
            "unreadable",
            "a link that leads out of the folder; follow_links: true in its entry of sources reads it",
        ),
        "pipe.jpg": ("unreadable", "a pipe, a socket or a device, not a file"),
        "zero.jpg": ("unreadable", "a pipe, a socket or a device, not a file"),
    }
    for row in rows_of(dataset, "listing"):
        if row["member"] in ("huge.jpg", "zero.jpg", "pipe.jpg"):
            listed = tuple(
                row[name] for name in ("row_id", "source", "member", "byte_offset", "num_bytes", "reason", "detail")
            )
            assert header_row(listed, 300_000_000)[-2] == "unreadable"


def test_a_caption_is_not_lost_to_a_disk_that_fails_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "in", [(20, 10)] * 3, captions=False)
    for number in range(3):
        (tmp_path / "in" / f"{number:03d}.txt").write_text("words")
    made = recipe(tmp_path / "in", tmp_path / "ds")

    def failing(source: str, member: str, *places: Any, **bounds: Any) -> bytes:
        if member == "001.txt":
            raise OSError(5, "Input/output error")
        if member == "002.txt":
            raise PermissionError(13, "Permission denied")
        return read_original(source, member, *places, **bounds)

    with monkeypatch.context() as broken:
        broken.setattr("curation.ingest.ingest.read_original", failing)
        dataset, _ = build(made, upto="ingest")
    assert [(row["raw_caption"], row["reason"], row["detail"]) for row in rows_of(dataset, "images")] == [
        ("words", None, None),
        (None, "unreadable", "its caption file 001.txt: Input/output error"),
        (None, None, None),
    ]
    build(made, upto="ingest", retry_failed=True)
    assert [row["raw_caption"] for row in rows_of(dataset, "images")] == ["words"] * 3


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
def test_hostile_pictures_are_rows_wherever_they_come_from(tmp_path: Path, ghostscript_log: Path, kind: str) -> None:
    source = tmp_path / "in"
    write_files(source, HOSTILE if kind == "folder" else {})
    source.mkdir(exist_ok=True)
    if kind == "tar":
        with tarfile.open(source / "0.tar", "w") as tar:
            for number, (name, data) in enumerate(HOSTILE.items()):
                info = tarfile.TarInfo(f"{number}.{name.partition('.')[2]}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        sources = [{"kind": "webdataset", "urls": str(source)}]
    elif kind == "parquet":
        table = pa.table({"image": [{"bytes": data, "path": name} for name, data in HOSTILE.items()]})
        pq.write_table(table, source / "0.parquet")
        sources = [{"kind": "table", "path": str(source), "columns": {"bytes": "image"}}]
    else:
        sources = [{"kind": "folder", "path": str(source)}]
    begun = time.process_time()
    dataset, _ = build(recipe(None, tmp_path / "out", sources=sources, part_rows=100), upto="ingest")
    assert time.process_time() - begun < 5
    found = {row["sha256"]: row["reason"] for row in rows_of(dataset, "images")}
    reasons = {name: found[hashlib.sha256(data).hexdigest()] for name, data in HOSTILE.items()}
    assert reasons == {
        **dict.fromkeys(HOSTILE, "corrupt"),
        **dict.fromkeys(("eps.jpg", "eps.bmp", "wrapped.jpg", "wrapped.png"), "unsupported"),
        "endless.png": None,
        "blocks.jp2": "too_many_pixels",
    }
    assert not ghostscript_log.exists()
