"""Contrast by WCAG 2.2 (1.4.3 for text, 1.4.11 for marks), and colours as colour-blind people see them."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from schemas.reasons import OUTCOMES

STYLE = "".join(
    files("viewer").joinpath(f"templates/{name}.css").read_text(encoding="utf-8") for name in ("style", "evaluation")
)
THEMES = {
    theme: dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))
    for theme, block in zip(("light", "dark"), re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL), strict=True)
}

SURFACES = ("paper", "card", "wash")
"""What text stands on."""
SOURCES = ("raw", "synthetic", "mix")
MARKS = (*SOURCES, *OUTCOMES)
GUIDES = ("line",)
"""Rules between rows and lines of a grid, which say nothing by themselves."""

MACHADO: dict[str, Any] = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira and Fernandes 2009, severity 1, over linear RGB."""
LEAST_DIFFERENCE = {SOURCES: 20.0, OUTCOMES: 18.0}
"""CIE76 between any two colours of a palette, however they are seen; about 2 can just be told apart side by side."""


def linear(colour: str) -> np.ndarray:
    share = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def mixed(top: str, share: float, below: str) -> str:
    """A colour over another, as `color-mix` with transparent gives it."""
    pairs = ((int(top[place : place + 2], 16), int(below[place : place + 2], 16)) for place in (1, 3, 5))
    return "#" + "".join(f"{round(one * share + other * (1 - share)):02x}" for one, other in pairs)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65 of linear sRGB."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ratio = (np.array(to_xyz) @ rgb.clip(0, 1)) / [0.95047, 1, 1.08883]
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def test_formulas_give_published_values() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    for matrix in MACHADO.values():
        assert np.sum(matrix, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)  # grey stays grey


def test_every_colour_of_the_sheets_is_one_of_these() -> None:
    """No colour is written in a rule, so that what is tested here is all there is."""
    rules = re.sub(r":root \{.*?\}|/\*.*?\*/", "", STYLE, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{}]*\{)|\brgba?\(|\bhsla?\(", rules)
    used = set(re.findall(r"var\(--([a-z]+)\)", rules))
    assert used <= {*SURFACES, "ink", "soft", *MARKS, *GUIDES}
    assert all(set(colours) == {*SURFACES, "ink", "soft", *MARKS, *GUIDES} for colours in THEMES.values())


@pytest.mark.parametrize("theme", THEMES)
def test_text_stands_out_from_every_surface(theme: str) -> None:
    """Whatever a rule colours text with, on whatever text stands on."""
    colours = THEMES[theme]
    written = [*re.findall(r"(?<![-\w])color: var\(--([a-z]+)\)", STYLE), "ink", "soft"]
    written += re.findall(r"\.(?:tick|limit-label) \{ fill: var\(--([a-z]+)\)", STYLE)
    text = set(written) - {"paper"}  # on ink, below
    assert text == {"ink", "soft", "synthetic"}
    measured = {(name, surface): contrast(colours[name], colours[surface]) for name in text for surface in SURFACES}
    (percent,) = re.findall(
        r"lowest \{ color: var\(--ink\); background: color-mix\(in srgb, var\(--error\) (\d+)%", STYLE
    )
    measured["ink", "marked sentence"] = contrast(
        colours["ink"], mixed(colours["error"], int(percent) / 100, colours["card"])
    )
    measured["paper", "ink"] = contrast(colours["paper"], colours["ink"])
    assert min(measured.values()) >= 4.5, min(measured.items(), key=lambda item: item[1])


@pytest.mark.parametrize("theme", THEMES)
def test_marks_stand_out_from_paper_and_card(theme: str) -> None:
    colours = THEMES[theme]
    measured = {(mark, behind): contrast(colours[mark], colours[behind])
                for mark in (*MARKS, "soft", "ink") for behind in ("paper", "card")}  # fmt: skip
    assert min(measured.values()) >= 3, min(measured.items(), key=lambda item: item[1])


@pytest.mark.parametrize("seen", MACHADO)
@pytest.mark.parametrize("palette", LEAST_DIFFERENCE)
@pytest.mark.parametrize("theme", THEMES)
def test_colours_of_a_palette_differ_however_they_are_seen(theme: str, palette: tuple[str, ...], seen: str) -> None:
    as_seen = {name: lab(np.array(MACHADO[seen]) @ linear(THEMES[theme][name])) for name in palette}
    differences = {
        (one, other): float(np.linalg.norm(as_seen[one] - as_seen[other]))
        for one, other in itertools.combinations(palette, 2)
    }
    assert min(differences.values()) >= LEAST_DIFFERENCE[palette], min(differences.items(), key=lambda item: item[1])
