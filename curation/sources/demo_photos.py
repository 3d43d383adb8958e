"""Write the demo's folder: the photographs that the scikit-image wheel carries, captions, and files gone bad."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from schemas.commit import write_bytes
from schemas.files import TEMPORARY, entries_in
from schemas.pixels import open_rgb


class Photo(NamedTuple):
    """A picture of the wheel with a caption of ours."""

    file: str
    caption: str
    license: str | None
    """As scikit-image's documentation states it; None where it states none."""


CC0 = "CC0-1.0"
PUBLIC_DOMAIN = "public domain"
UNRESTRICTED = "no known copyright restrictions"

PHOTOS = (
    Photo(
        "astronaut.png",
        "A smiling astronaut in an orange space suit, with a flag and a model of the shuttle behind her.",
        PUBLIC_DOMAIN,
    ),
    Photo("brick.png", "Grey bricks of a wall laid in long upright rows, seen from close by.", CC0),
    Photo("camera.png", "A man in a dark coat bends over a camera on a tripod, on a wide lawn.", CC0),
    Photo("chelsea.png", "Close-up of a ginger tabby cat with green eyes and a pink nose, resting.", CC0),
    Photo("coffee.png", "A cup of espresso on a red saucer with a spoon, on a wooden table.", CC0),
    Photo("coins.png", "Four rows of old Greek coins lying on a dark cloth.", UNRESTRICTED),
    Photo("color.png", "A wheel of all the colours of the rainbow, glowing on a black ground.", None),
    Photo("horse.png", "The black silhouette of a horse standing still, on a plain white ground.", CC0),
    Photo(
        "hubble_deep_field.jpg",
        "Hundreds of distant galaxies and a few stars scattered over a black sky.",
        PUBLIC_DOMAIN,
    ),
    Photo("ihc.png", "Stained tissue under a microscope, brown glands among pale blue cells.", UNRESTRICTED),
    Photo("logo.png", "A round badge of a green and an orange snake curled around each other.", None),
    Photo("moon.png", "The grey surface of the moon with a few craters and soft shadows.", None),
    Photo("motorcycle_left.png", "A red motorcycle parked in a garage full of shelves and tools.", None),
    Photo("retina.jpg", "The inside of an eye, an orange disc with branching red blood vessels.", CC0),
    Photo("rocket.jpg", "A white rocket on its launch pad at dusk, lit by lamps between tall masts.", CC0),
)

SIDECARS = {"chelsea.png": ".json", "coffee.png": ".txt"}
"""Photos whose caption is in a sidecar file; the other captions are in `captions.jsonl`."""

ERROR_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


def refuse_other_files(out: Path) -> None:
    """Leave alone what is no demo's folder. Raises ValueError: it is a file or holds other things, or `photos` does."""
    for folder, mark in ((out, "photos"), (out / "photos", PHOTOS[0].file)):
        if folder.is_file():
            raise ValueError(f"{folder}: is a file; name a folder for the demo")
        names = {name for name in entries_in(folder) if not name.startswith(TEMPORARY)}
        if names and mark not in names:
            raise ValueError(f"{folder}: holds other files and no demo; name an empty or new folder")


def write_demo_photos(folder: Path) -> int:
    """Write photographs, captions and bad files; the same bytes on every call. Returns the number of image files, good
    and bad; the ledger of a dataset made from the folder adds up to it."""
    package = files("skimage") / "data"
    originals = {photo.file: (package / photo.file).read_bytes() for photo in PHOTOS}
    images = originals | bad_files(originals, spare=(package / "grass.png").read_bytes())
    for name, data in images.items():
        write_bytes(folder / name, data)
    table = []
    for photo in PHOTOS:
        sidecar = (folder / photo.file).with_suffix(SIDECARS.get(photo.file, ""))
        words = {"caption": photo.caption, "license": photo.license}
        if sidecar.suffix == ".json":
            write_bytes(sidecar, json.dumps(words).encode())
        elif sidecar.suffix == ".txt":
            write_bytes(sidecar, f"{photo.caption}\n".encode())
        else:
            table.append({"file_name": photo.file, **words})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    write_bytes(folder / "captions.jsonl", lines.encode())
    return len(images)


def bad_files(originals: dict[str, bytes], spare: bytes) -> dict[str, bytes]:
    """Bad files as every collection has them: broken, no picture, too small, or a copy. `originals`: the good photos by
    name. `spare`: a picture that is not among them."""
    rocket, coffee = originals["rocket.jpg"], originals["coffee.png"]
    return {
        "bad/cut_in_half.jpg": rocket[: len(rocket) // 2],
        "bad/empty.jpg": b"",
        "bad/error_page.jpg": ERROR_PAGE,
        "bad/blinking.gif": _animation(open_rgb(coffee, longest_px=160)),
        "bad/thumbnail.png": _encoded(open_rgb(spare, longest_px=72), "PNG"),
        "bad/coffee_copy.png": coffee,
        "bad/hubble_recompressed.jpg": _encoded(open_rgb(originals["hubble_deep_field.jpg"]), "JPEG", quality=60),
    }


def _encoded(image: Image.Image, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _animation(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    dark = Image.new("RGB", image.size)
    image.save(buffer, "GIF", save_all=True, append_images=[dark], duration=500, loop=0)
    return buffer.getvalue()
