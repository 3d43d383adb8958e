"""The graph of one forward pass, with everything outside of it that bf16 would round too much."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from training.model import PixArt, PixArtConfig
from training.model.embed import SINUSOID_CHANNELS, position_table
from training.model.pixart import LATENT_DOWNSAMPLING
from training.runtimes.manifest import Sizes

INPUTS = ("latents", "sinusoid", "caption", "rows", "columns")
MAX_SIDE_PX = 8192


class Graph(nn.Module):
    """A model between its inputs in fp32 and the noise, for one picture and one caption without padding.

    The timestep and the positions come as sines and cosines: a runtime that computes in bf16 would round the angles
    too, which costs 4.5 % of the noise at timestep 999. The table of positions is the sum of one axis each.
    """

    def __init__(self, model: PixArt) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, sinusoid: Tensor, caption: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(1, C, h, w), (1, 256), (1, n, channels), (h / p, width / 2), (w / p, width / 2) -> noise (1, C, h, w)."""
        column = columns[None].expand(rows.shape[0], -1, -1)
        row = rows[:, None].expand(-1, columns.shape[0], -1)
        positions = torch.cat([column, row], dim=2).flatten(0, 1)[None]  # (1, N, width)
        return self.model.from_waves(latents, sinusoid, caption, positions=positions).chunk(2, dim=1)[0]


@lru_cache(maxsize=8)
def axes(config: PixArtConfig, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The inputs `rows` and `columns` for latents of height x width cells, float32."""
    knobs = (config.hidden_size, config.base_tokens, config.pe_interpolation)
    half = config.hidden_size // 2
    rows = position_table(height // config.patch_size, 1, *knobs)[:, half:]
    columns = position_table(1, width // config.patch_size, *knobs)[:, :half]
    return rows.float().contiguous(), columns.float().contiguous()


def sizes_of(config: PixArtConfig, fixed: tuple[tuple[int, int], ...] = ()) -> Sizes:
    """The pictures that a graph can draw: whole patches, and two keys per axis after compression, because a graph of
    dynamic size cannot tell an axis of one from a size that never changes."""
    patch = config.patch_size * LATENT_DOWNSAMPLING
    ratio = config.kv_compression.ratio if config.kv_compression else 1
    return Sizes(multiple_px=patch, minimum_px=2 * patch * ratio, maximum_px=MAX_SIDE_PX, fixed=fixed)


def traced(model: PixArt, fixed: tuple[int, int] | None = None) -> torch.export.ExportedProgram:
    """The graph of a model, as every runtime takes it; of any size and caption. `fixed`: (height, width) in px of a
    graph for this size alone; the caption's length stays free."""
    config, sizes = model.config, sizes_of(model.config)
    least = sizes.minimum_px // sizes.multiple_px
    height, width = (side // LATENT_DOWNSAMPLING for side in fixed or (0, 0))
    if fixed is None:
        height, width = config.patch_size * (least + 2), config.patch_size * (least + 6)
    most = config.max_caption_tokens
    inputs = (
        torch.zeros(1, config.in_channels, height, width),
        torch.zeros(1, SINUSOID_CHANNELS),
        torch.zeros(1, min(7, most), config.caption_channels),
        *axes(config, height, width),
    )
    tokens = {1: torch.export.Dim("tokens", min=1, max=most)} if most > 1 else {}
    shapes: dict[str, dict] = {name: {} for name in INPUTS} | {"caption": tokens}
    if fixed is None:
        largest = sizes.maximum_px // sizes.multiple_px
        rows, columns = (torch.export.Dim(name, min=least, max=largest) for name in ("rows", "columns"))
        p = config.patch_size
        shapes |= {"latents": {2: p * rows, 3: p * columns}, "rows": {0: rows}, "columns": {0: columns}}
    return torch.export.export(Graph(model).eval(), inputs, dynamic_shapes=shapes)
