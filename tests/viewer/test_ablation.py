"""The figure of an ablation."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from evaluation.ablation.cells import GRID, Experiment
from tests.evaluation.ablation.test_table import BLOCK, STAGE, rows
from viewer.ablation import write_ablation

SVG = "{http://www.w3.org/2000/svg}"


def test_the_grid_is_bars_with_whiskers_and_a_claim_a_curve_of_each_cell(tmp_path: Path) -> None:
    losses = {"none": [0.1, 0.2, 0.3], "deep-2x2-conv": [0.3, 0.3, 0.3]}
    grid, claim = (Experiment(name, STAGE, (BLOCK,) * num) for name, num in ((GRID, 2), ("positions", 1)))
    path = tmp_path / "new" / "figure.svg"
    later = rows({name: [value / 2 for value in values] for name, values in losses.items()}, step=40, fid=None)
    write_ablation(path, "a <b> & c", [(grid, rows(losses)), (claim, rows(losses, fid=None) + later)])
    root = ElementTree.parse(path).getroot()
    assert root.findtext(f"{SVG}title") == "a <b> & c"
    panels = root.findall(f"{SVG}g")
    titles = [panel.findtext(f"{SVG}text") for panel in panels]
    shown = ["layers: validation loss, 64 px", "layers: FID of 24 pictures, 64 px"]
    assert titles == shown * 2 + ["positions: validation loss, 64 px"]
    bars = [float(bar.attrib["height"]) for bar in panels[0].findall(f"{SVG}rect")]
    assert len(bars) == 2
    assert bars[1] > bars[0] > 0, "a higher loss is a longer bar"
    curves = [curve.attrib["points"].split() for curve in panels[-1].findall(f"{SVG}polyline")]
    assert [len(curve) for curve in curves] == [2, 2]
    assert all(0 <= float(y) <= 190 for curve in curves for y in (point.split(",")[1] for point in curve))
