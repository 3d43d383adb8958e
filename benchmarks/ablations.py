"""Table 3 and the three weak-to-strong claims at toy scale, and their figure docs/ablations.svg; `make ablations`.

The pictures are tiles of the demo's photographs, so that some can be held out.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

from curation.sources.demo_photos import PHOTOS
from schemas.commit import write_bytes
from schemas.pixels import open_rgb

TILE_PX, TILES = 128, 16
TRAINING = (
    "model.depth=6",
    "validation.share=0.2",
    "validation.samples=32",
    "stages.0.steps=200",
    "stages.1.steps=300",
    "stages.2.steps=500",
    "stages.2.multi_aspect=false",
    "stages.3.multi_aspect=false",
    "stages.3.kv_compression.layers=[3, 4, 5]",
    "stages.3.warmup_steps=10",
    "validation.every=20",
)
"""Half of six blocks is three; the warm-ups fit the cells' hundred steps."""


def write_tiles(folder: Path) -> int:
    """Write up to 16 tiles of each photograph, each with its caption; how many there are."""
    count = 0
    for photo in PHOTOS:
        image = open_rgb((files("skimage") / "data" / photo.file).read_bytes())
        places = [
            (left, top)
            for top in range(0, image.height - TILE_PX + 1, TILE_PX)
            for left in range(0, image.width - TILE_PX + 1, TILE_PX)
        ]
        for number, (left, top) in enumerate(places[:: max(1, len(places) // TILES)]):
            buffer = io.BytesIO()
            image.crop((left, top, left + TILE_PX, top + TILE_PX)).save(buffer, "PNG")
            name = f"{Path(photo.file).stem}-{number:02d}"
            write_bytes(folder / f"{name}.png", buffer.getvalue())
            write_bytes(folder / f"{name}.txt", photo.caption.encode())
            count += 1
    return count


def sigma(*words: str) -> None:
    """Run the command with one thread: tiny tensors gain nothing from two, which wait for each other."""
    subprocess.run([sys.executable, "-m", "sigma", *words], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def main() -> None:
    work, begun = Path("build/ablations"), time.perf_counter()
    if not (work / "dataset" / "shards").is_dir():
        print(f"{write_tiles(work / 'tiles')} tiles")
        select = ("select.min_short_side_px=64", "select.min_aesthetic=null")
        sigma("build", "folder", f"images={work / 'tiles'}", f"out={work / 'dataset'}", "run.runner=local", *select)
    training = [f"dataset={work / 'dataset'}", f"out={work / 'model'}", *TRAINING]
    knobs = [f"out={work / 'out'}", f"overrides={training!r}", "steps=100"]
    sigma("ablate", "ablate_demo", *knobs, "pictures=24")
    for claim in ("positions", "conv-avg-init", "vae"):
        sigma("ablate", "ablate_demo", "--claim", claim, *knobs, "pictures=16", "pictures_at=2")
    figure = Path(__file__).parents[1] / "docs" / "ablations.svg"
    shutil.copyfile(work / "out" / "ablation.svg", figure)
    print(f"{figure}: {time.perf_counter() - begun:,.0f} s")


if __name__ == "__main__":
    main()
