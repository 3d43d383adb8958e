"""Draw docs/screens.png: what each screen sees, with its value measured on the spot; and docs/screens_boxes.png, where
the networks that find writing and faces draw their boxes.

`python -m benchmarks.screens_sheet`, after `sigma weights get ppocr-detector centerface`
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from curation.scores.border import border
from curation.scores.faces import FaceDetector
from curation.scores.sharpness import sharpness
from curation.scores.text_area import TextDetector
from curation.scores.upscale import upscale

TILE_PX = (208, 140)
LINE_PX = 18
COLOURS = 96
"""Of the palette: photographs as PNG are large."""


def photo(name: str) -> Image.Image:
    """A photograph of the scikit-image wheel."""
    with (files("skimage") / "data" / name).open("rb") as file:
        return Image.open(file).convert("RGB")


def enlarged(image: Image.Image, factor: float) -> Image.Image:
    """The picture as one of its size that was enlarged by this factor."""
    small = image.resize((int(image.width / factor), int(image.height / factor)), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def letterboxed(image: Image.Image, bar_px: int) -> Image.Image:
    """Black bars above and below."""
    whole = Image.new("RGB", (image.width, image.height + 2 * bar_px))
    whole.paste(image, (0, bar_px))
    return whole


def watermarked(image: Image.Image) -> Image.Image:
    """A word across the picture, half see-through."""
    layer = Image.new("L", image.size)
    draw = ImageDraw.Draw(layer)
    for top in range(40, image.height, 120):
        draw.text((30 + top % 100, top), "SAMPLE   SAMPLE   SAMPLE", fill=150, font_size=44)
    marked = image.copy()
    marked.paste((255, 255, 255), mask=layer)
    return marked


def tiles() -> list[tuple[Image.Image, str]]:
    """Picture and line below it, row by row of four."""
    cup, cat, bike = photo("coffee.png"), photo("chelsea.png"), photo("motorcycle_left.png")
    blurred = cup.filter(ImageFilter.GaussianBlur(3))
    background = cup.filter(ImageFilter.GaussianBlur(6))
    background.paste(cup.crop((180, 100, 420, 300)), (180, 100))
    barred, framed = letterboxed(bike, 90), Image.new("RGB", (cat.width + 120, cat.height + 120), "white")
    framed.paste(cat, (60, 60))
    sharp = [(each, f"{what}: sharpness {sharpness(each):.0f}") for each, what in
             ((cup, "sharp"), (background, "soft behind"), (blurred, "blurred"))]  # fmt: skip
    sizes = [(enlarged(bike, factor), factor) for factor in (1, 2, 4)]
    grown = [(each, f"enlarged {factor} x: upscale {upscale(each):.1f}") for each, factor in sizes]
    bars = [(each, f"{what}: border {border(each).share:.2f}") for each, what in
            ((cat, "whole"), (barred, "letterbox"), (framed, "frame"))]  # fmt: skip
    others = [
        (watermarked(bike), "watermark: a classifier's"),
        (cat, '"a cup of coffee": clip_similarity'),
    ]
    return [*sharp, others[0], *grown, others[1], *bars]


def details() -> list[tuple[Image.Image, str]]:
    """The tiles, cut to the part that shows what is measured: it would vanish in a thumbnail."""
    whole = ("border", "clip")
    return [
        (image if any(word in line for word in whole) else image.crop((170, 110, 430, 285)), line)
        for image, line in tiles()
    ]


def boxed() -> list[tuple[Image.Image, str]]:
    """Photographs with the boxes of writing in red and of faces in green, and line below."""
    text, faces = TextDetector(), FaceDetector()
    cup, cat, bike = photo("coffee.png"), photo("chelsea.png"), photo("motorcycle_left.png")
    two = Image.new("RGB", (1024, 512))
    two.paste(photo("astronaut.png"))
    two.paste(photo("camera.png"), (512, 0))
    signed = cup.copy()
    ImageDraw.Draw(signed).text((330, 340), "© A. Photographer 2026", fill="white", font_size=22)
    pictures = [photo("page.png"), watermarked(bike), signed, bike, photo("astronaut.png"), two, cup, cat]
    shown = []
    for picture in pictures:
        seen, found = text(picture), faces(picture)
        line = f"text {seen.share:.3f}, faces {len(found.scores)}"
        line += f", largest {found.largest:.3f}" if len(found.scores) else ""
        tile = picture.resize(
            [
                round(side * min(4 * TILE_PX[0] / picture.width, 4 * TILE_PX[1] / picture.height))
                for side in picture.size
            ]
        )
        draw = ImageDraw.Draw(tile)
        for corners in seen.corners:
            draw.polygon([(x * tile.width, y * tile.height) for x, y in corners.tolist()], outline="red", width=8)
        for left, top, right, bottom in found.boxes.tolist():
            edges = (left * tile.width, top * tile.height, right * tile.width, bottom * tile.height)
            draw.rectangle(edges, outline="lime", width=8)
        shown.append((tile, line))
    return shown


def sheet(shown: list[tuple[Image.Image, str]]) -> Image.Image:
    """All tiles on one sheet."""
    rows = -(-len(shown) // 4)
    width, height = TILE_PX[0] + 8, TILE_PX[1] + LINE_PX + 8
    page = Image.new("RGB", (4 * width + 8, rows * height + 8), "white")
    draw = ImageDraw.Draw(page)
    for place, (image, line) in enumerate(shown):
        left, top = 8 + place % 4 * width, 8 + place // 4 * height
        part = image.copy()
        part.thumbnail(TILE_PX, Image.Resampling.LANCZOS)
        page.paste(part, (left + (TILE_PX[0] - part.width) // 2, top + (TILE_PX[1] - part.height) // 2))
        draw.text((left, top + TILE_PX[1] + 2), line, fill="black", font_size=12)
    draw.rectangle((0, 0, page.width - 1, page.height - 1), outline=(200, 200, 200))
    return page


if __name__ == "__main__":
    for name, make in (("screens.png", details), ("screens_boxes.png", boxed)):
        target = Path(__file__).parents[1] / "docs" / name
        sheet(make()).quantize(COLOURS).save(target, optimize=True)
        print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")
