"""Figures that the PixArt-Σ paper (arXiv 2403.04692v2) prints, shown next to ours and marked as the paper's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table1Row:
    """One row of Table 1, as printed there."""

    dataset: str
    volume: str
    caption: str
    valid_nouns: str
    """VN: distinct nouns that appear more than 10 times."""
    distinct_nouns: str
    total_nouns: str
    average_caption_words: str
    """ACL, in words."""
    average_nouns: str
    """Nouns per image."""


TABLE_1 = (
    Table1Row("Internal-α", "14M", "raw", "187K", "931K", "175M", "25", "11.7"),
    Table1Row("Internal-α", "14M", "LLaVA", "28K", "215K", "536M", "98", "29.3"),
    Table1Row("Internal-α", "14M", "Share-Captioner", "51K", "420K", "815M", "184", "54.4"),
    Table1Row("Internal-Σ", "33M", "raw", "294K", "1512K", "485M", "35", "14.4"),
    Table1Row("Internal-Σ", "33M", "Share-Captioner", "77K", "714K", "1804M", "180", "53.6"),
    Table1Row("4K-Σ", "2.3M", "Share-Captioner", "24K", "96K", "115M", "163", "49.5"),
)
"""Table 1. The LLaVA row does not add up: 536M / 29.3 is 18.3M images, not 14M."""


@dataclass(frozen=True)
class PublishedScores:
    """What a publication prints of a model: FID, and the cosine of CLIP-Score (x100 where `clip` is above 1)."""

    model: str
    fid: float
    clip: float


@dataclass(frozen=True)
class PublishedTable:
    """A published table of scores, and why its rows do or do not compare with ours."""

    title: str
    compares: str
    protocol: str | None
    """The protocol of ours under which its rows can be reproduced; None where nothing reproduces them."""
    rows: tuple[PublishedScores, ...]


TABLE_6 = PublishedTable(
    "PixArt-Σ, Table 6",
    "not comparable: its 30,000 reference pictures were never published, nor its code, its resolution or its CLIP; "
    "a value that differs from it says nothing",
    None,
    (
        PublishedScores("Stable 1.5", 17.03, 0.2748),
        PublishedScores("Stable Turbo", 10.91, 0.2804),
        PublishedScores("SDXL", 7.38, 0.2913),
        PublishedScores("Stable Cascade", 9.96, 0.2839),
        PublishedScores("Playground-V2.0", 8.68, 0.2885),
        PublishedScores("Playground-V2.5", 7.64, 0.2871),
        PublishedScores("PixArt-α", 8.65, 0.2787),
        PublishedScores("PixArt-Σ", 8.23, 0.2797),
    ),
)
_SANA = "30,000 prompts of MJHQ-30K, pictures saved as JPEG of quality 75, CLIP ViT-L/14 x100,"
SANA_512 = PublishedTable(
    "Sana's README, MJHQ-30K at 512 px",
    f"comparable with {_SANA} under sana-512",
    "sana-512",
    (PublishedScores("PixArt-α", 6.14, 27.55), PublishedScores("PixArt-Σ", 6.34, 27.62)),
)
SANA_1024 = PublishedTable(
    "Sana's README, MJHQ-30K at 1024 px",
    f"comparable with {_SANA} under sana-1024",
    "sana-1024",
    (
        PublishedScores("SDXL", 6.63, 29.03),
        PublishedScores("Playground v2.5", 6.09, 29.13),
        PublishedScores("Hunyuan-DiT", 6.54, 28.19),
        PublishedScores("PixArt-Σ", 6.15, 28.26),
        PublishedScores("SD3-medium", 11.92, 27.83),
        PublishedScores("FLUX-dev", 10.15, 27.47),
        PublishedScores("FLUX-schnell", 7.94, 28.14),
        PublishedScores("Sana-1.6B", 5.76, 28.67),
    ),
)
PUBLISHED_SCORES = (TABLE_6, SANA_512, SANA_1024)


@dataclass(frozen=True)
class Table3Row:
    """One row of Table 3, ablations of KV compression on the model of 0.6B parameters."""

    block: str
    """layers, ratio or operator: parts a, c and b."""
    value: str
    px: int
    fid: float
    clip_score: float | None
    """None where it could not be checked against the page."""
    seconds: float | None = None
    """Of an iteration of training, 384 pictures."""


TABLE_3 = (
    Table3Row("layers", "none", 512, 8.244, 0.276),
    Table3Row("layers", "shallow", 512, 9.278, None),
    Table3Row("layers", "middle", 512, 9.063, None),
    Table3Row("layers", "deep", 512, 8.532, None),
    Table3Row("operator", "discard", 512, 8.918, None),
    Table3Row("operator", "average", 512, 9.415, None),
    Table3Row("operator", "conv", 512, 8.505, None),
    Table3Row("ratio", "1 x 1", 512, 8.244, 0.276, 2.3),
    Table3Row("ratio", "2 x 2", 512, 9.606, 0.276, 2.1),
    Table3Row("ratio", "1 x 1", 1024, 5.685, 0.277, 27.5),
    Table3Row("ratio", "2 x 2", 1024, 5.644, 0.276, 20.0),
    Table3Row("ratio", "3 x 3", 1024, 5.712, 0.275, 17.8),
)
"""Table 3, where a ratio is of tokens: its 4 and 9 are 2 x 2 and 3 x 3 here, and its 2 (FID 9.063 at 512 px, 5.512 at
1024 px) has no square. FID is of a set of 30,000 pictures that was never published. The table agrees with itself to no
better than 0.5: a 2 x 2 convolution in the deep blocks has FID 8.532 in part a, 8.505 in part b, and 9.606 in part c if
that is of these blocks, which it does not say; and the 9.063 of the middle blocks is also that of ratio 2."""
