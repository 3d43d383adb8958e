"""The offline captioner: says in a sentence or two what is measured in a picture: framing, palette with places, light,
saturation and the place of the detail. It knows no objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captioning.captioners.base import Generated, InBatches, Plain

Floats = NDArray[np.float64]

GRID_PX = 64
"""Longest side at which colours are measured."""
DETAIL_PX = 256
"""Longest side at which detail is measured."""
SMALLEST_SHARE = 0.06
"""A colour is named when it covers at least this share of the picture."""
MOST_COLOURS = 4
ACCENT_SHARE, ACCENT_CHROMA = 0.015, 45.0
"""A smaller area is still named as an accent when its colour is this far from grey in CIELAB."""


_COLOURS = (
    "black 0c0c0c, charcoal 303032, dark grey 525254, grey 808080, light grey b9b9b9, white f5f5f5, cream f6eed5, "
    "beige d8c8aa, tan c4a073, taupe 8a7a6c, brown 7c5230, dark brown 3e2a1c, chestnut 88422c, rust b04e24, "
    "terracotta cc6e50, dark red 6e1218, red cd2026, salmon ee8c76, peach f8caa8, pink f0aaba, hot pink ec4696, "
    "orange f0841e, amber e2a628, gold cca84a, yellow f6dc32, pale yellow f6ec96, olive 706c2a, khaki aca46c, "
    "lime green 96cc2c, green 3a8e3e, dark green 184224, sage green 92a480, mint green a6deba, teal 167678, "
    "turquoise 40beba, pale blue bed6e8, sky blue 78b2e2, blue 245cc4, navy blue 142052, slate blue 546882, "
    "steel blue 608cb4, indigo 3e2c86, violet 8052be, purple 62226c, lavender c4b8e4, mauve ac7e98, magenta c42896, "
    "plum 5c324c"
)
"""48 everyday names with their sRGB colour, chosen to be roughly evenly spread in CIELAB."""

PALETTE: dict[str, tuple[int, ...]] = {
    colour[:-7]: tuple(bytes.fromhex(colour[-6:])) for colour in _COLOURS.split(", ")
}
NAMES = tuple(PALETTE)


@dataclass(frozen=True)
class ColourPatch:
    """One named colour with the share of the picture that it covers, and the place of most of it."""

    name: str
    share: float
    place: str


@dataclass(frozen=True)
class Attributes:
    """The measurements of one picture. Lightness and contrast in CIELAB L (0 to 100), colourfulness in chroma."""

    aspect: float
    """width / height"""
    patches: tuple[ColourPatch, ...]
    """the dominant colours, largest first; at least one"""
    accent: str
    """a vivid colour of a smaller area, or ''"""
    lightness: float
    contrast: float
    """standard deviation of L"""
    chroma: float
    """mean distance from grey; under 4 the eye sees no colour"""
    warmth: float
    """mean of Lab b minus a third of what is blue-green: over 0 warm, under 0 cool"""
    side_light: float
    """mean L of the left half minus that of the right half"""
    top_light: float
    """mean L of the upper third minus that of the lower third"""
    detail: float
    """mean gradient of L per pixel at `DETAIL_PX`"""
    detail_place: str
    """centre, left, right, top, bottom, or '' where it is spread"""
    smooth_top: str
    """colour name of an even upper band, or ''"""


class AttributesCaptioner(InBatches):
    """The captioner `attributes`: deterministic, no weights, a few milliseconds per picture."""

    name = "attributes"
    revision = None
    prompt = None
    parameters: Mapping[str, Plain] = {}
    retries_help = False
    batch_size = 16

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Generated]:
        """One caption of about 20 to 50 words per RGB picture, whatever the seeds. Raises ValueError: one is not
        RGB."""
        return [Generated(describe(measure(image))) for image in images]


def measure(image: Image.Image) -> Attributes:
    """Measure one upright sRGB picture of mode RGB."""
    if image.mode != "RGB":
        raise ValueError(f"a captioner takes RGB pictures, this is {image.mode}")
    lab = to_lab(np.asarray(_shrunk(image, GRID_PX)))  # (rows, columns, 3)
    light = lab[..., 0]
    rows, columns = light.shape
    gradient = _gradient(to_lab(np.asarray(_shrunk(image, DETAIL_PX)))[..., 0])
    names = nearest_names(lab)
    patches = _patches(names)
    third = max(1, rows // 3)
    half = max(1, columns // 2)
    return Attributes(
        aspect=image.width / image.height,
        patches=patches,
        accent=_accent(names, patches),
        lightness=float(light.mean()),
        contrast=float(light.std()),
        chroma=float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        warmth=float((lab[..., 2] + lab[..., 1] / 3).mean()),
        side_light=float(light[:, :half].mean() - light[:, -half:].mean()),
        top_light=float(light[:third].mean() - light[-third:].mean()),
        detail=float(gradient.mean()),
        detail_place=_detail_place(gradient),
        smooth_top=_smooth_top(names, gradient),
    )


def describe(found: Attributes) -> str:
    opening = f"{_framing(found.aspect)} in {_light(found)}"
    palette = _listed([f"{patch.name} {patch.place}".strip() for patch in found.patches])
    tone = _tone(found)
    accent = f", and an accent of {found.accent}" if found.accent else ""
    first = f"{opening}, with {tone} of {palette}{accent}."
    clauses = [_detail(found)]
    if found.smooth_top:
        clauses.append(f"an even band of {found.smooth_top} fills the top")
    if abs(found.side_light) > 12:
        clauses.append(f"the {'left' if found.side_light > 0 else 'right'} side is brighter")
    elif abs(found.top_light) > 18 and not found.smooth_top:
        clauses.append(f"the {'upper' if found.top_light > 0 else 'lower'} part is brighter")
    second = _listed(clauses)
    return f"{first} {second[0].upper()}{second[1:]}."


def _shrunk(image: Image.Image, longest_px: int) -> Image.Image:
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _gradient(light: Floats) -> Floats:
    """Size of the difference to the right and lower neighbour, (rows, columns); the last row and column hold 0."""
    across, down = np.zeros_like(light), np.zeros_like(light)
    across[:, :-1] = np.diff(light, axis=1)
    down[:-1] = np.diff(light, axis=0)
    return np.hypot(across, down)


def _regions(rows: int, columns: int) -> dict[str, NDArray[np.bool_]]:
    """The places that words can name, as masks (rows, columns)."""
    y = (np.arange(rows)[:, None] + 0.5) / rows
    x = (np.arange(columns)[None, :] + 0.5) / columns
    centre = (abs(x - 0.5) < 0.25) & (abs(y - 0.5) < 0.25)
    everywhere = np.ones((rows, columns), dtype=bool)
    return {
        "centre": centre,
        "left": (x < 1 / 3) & everywhere,
        "right": (x > 2 / 3) & everywhere,
        "top": (y < 1 / 3) & everywhere,
        "bottom": (y > 2 / 3) & everywhere,
        "edges": (np.maximum(abs(x - 0.5), abs(y - 0.5)) > 0.36) & everywhere,
    }


_PLACES = {
    "centre": "in the centre",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "edges": "in the background",
}


def _patches(names: NDArray[np.intp]) -> tuple[ColourPatch, ...]:
    """The dominant colours with the place where each is most over-represented, if any is by half."""
    counts = np.bincount(names.ravel(), minlength=len(NAMES))
    order = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
    regions = {name: mask for name, mask in _regions(*names.shape).items() if mask.any()}
    patches: list[ColourPatch] = []
    for index in order:
        share = counts[index] / names.size
        if share < SMALLEST_SHARE and patches:
            break
        here = names == index
        lift = {place: here[mask].mean() / share for place, mask in regions.items()}
        place = max(lift, key=lambda name: lift[name])
        patches.append(ColourPatch(NAMES[index], float(share), _where(place, lift[place], float(share))))
    return tuple(patches)


def _accent(names: NDArray[np.intp], patches: Sequence[ColourPatch]) -> str:
    """The largest vivid colour that is not among the dominant ones."""
    counts = np.bincount(names.ravel(), minlength=len(NAMES))
    named = np.isin(NAMES, [patch.name for patch in patches])
    counts[named | (PALETTE_CHROMA < ACCENT_CHROMA)] = 0
    index = int(counts.argmax())
    return NAMES[index] if counts[index] >= ACCENT_SHARE * names.size else ""


def _where(place: str, lift: float, share: float) -> str:
    """A place that holds clearly more of the colour than the picture does; for a colour that rules, 'throughout'."""
    if share > 0.6:
        return "throughout"
    return _PLACES[place] if lift > (1.25 if share > 0.3 else 1.4) else ""


def _detail_place(gradient: Floats) -> str:
    regions = {name: mask for name, mask in _regions(*gradient.shape).items() if mask.any() and name != "edges"}
    overall = float(gradient.mean())
    if overall == 0:
        return ""
    lift = {name: float(gradient[mask].mean()) / overall for name, mask in regions.items()}
    place = max(lift, key=lambda name: lift[name])
    return place if lift[place] > 1.3 else ""


def _smooth_top(names: NDArray[np.intp], gradient: Floats) -> str:
    """The colour that covers nearly all of the upper quarter, where that is much smoother than the rest."""
    top = names[: max(1, names.shape[0] // 4)]
    counts = np.bincount(top.ravel(), minlength=len(NAMES))
    index = int(counts.argmax())
    upper = float(gradient[: max(1, gradient.shape[0] // 4)].mean())
    even = counts[index] / top.size > 0.7 and upper < 0.5 * float(gradient.mean())
    return NAMES[index] if even else ""


def _framing(aspect: float) -> str:
    if aspect > 2.2:
        return "A panoramic photograph"
    if aspect > 1.15:
        return "A wide photograph"
    if aspect < 0.45:
        return "A very tall photograph"
    return "A tall photograph" if aspect < 0.87 else "A square photograph"


def _light(found: Attributes) -> str:
    levels = ((20, "dark"), (38, "dim"), (58, "moderate"), (75, "bright"), (101, "very bright"))
    level = next(word for limit, word in levels if found.lightness < limit)
    spread = ((9, "flat, "), (17, "soft, "), (27, ""), (101, "high-contrast, "))
    contrast = next(word for limit, word in spread if found.contrast < limit)
    return f"{contrast}{level} light"


def _tone(found: Attributes) -> str:
    if found.chroma < 4:
        return "a monochrome palette"
    strength = ((12, "a muted"), (28, "a natural"), (45, "a rich"), (999, "a vivid"))
    word = next(word for limit, word in strength if found.chroma < limit)
    warmth = "warm " if found.warmth > 10 else "cool " if found.warmth < -4 else ""
    return f"{word} {warmth}palette"


def _detail(found: Attributes) -> str:
    grades = ((1.2, "smooth surfaces"), (3.0, "gentle texture"), (6.5, "clear detail"), (999, "dense fine detail"))
    texture = next(word for limit, word in grades if found.detail < limit)
    surfaces = texture.endswith("surfaces")
    if not found.detail_place:
        return f"{texture} fill the frame" if surfaces else f"{texture} lies across the frame"
    return f"{texture} {'lie' if surfaces else 'lies'} mostly {_PLACES[found.detail_place]} of the frame"


def _listed(items: Sequence[str]) -> str:
    """a / a and b / a, b and c"""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def to_lab(rgb: NDArray[np.uint8]) -> Floats:
    """sRGB (..., 3) of 0 to 255 to CIELAB (..., 3), D65 white: L in 0 to 100 (IEC 61966-2-1 and CIE 15)."""
    scaled = rgb.astype(np.float64) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear[..., 0], linear[..., 1], linear[..., 2]
    x = _lab_curve((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047)
    y = _lab_curve(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = _lab_curve((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def nearest_names(lab: Floats) -> NDArray[np.intp]:
    """For CIELAB colours (..., 3), the index into `NAMES` of the nearest one (CIE76 distance)."""
    across = [lab[..., channel, None] - _PALETTE_LAB[:, channel] for channel in range(3)]
    return np.argmin(across[0] ** 2 + across[1] ** 2 + across[2] ** 2, axis=-1)


def _lab_curve(ratio: Floats) -> Floats:
    return np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)


_PALETTE_LAB = to_lab(np.array(list(PALETTE.values()), dtype=np.uint8))
PALETTE_CHROMA: Floats = np.hypot(_PALETTE_LAB[:, 1], _PALETTE_LAB[:, 2])
"""Distance from grey of each name's colour, in the order of `NAMES`."""
