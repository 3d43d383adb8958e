"""The data recipe: every knob between a folder of raw images and the shards, with its unit and default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.captioners import Caption
from schemas.files import place_of
from schemas.locations import absolute, for_datasets
from schemas.scores import LIMITED, LIMITS, Aesthetic, Models, Screen
from schemas.sources import AnySource, FolderSource, Source
from schemas.strict import DUCKDB_MEMORY, LocalPath, Seed, StrictModel, fingerprint, matching

JOBS = (
    "ingest",
    "fingerprint",
    "aesthetic",
    "dedup",
    "clean",
    "screen",
    "select",
    "caption",
    "mix",
    "nouns",
    "ground",
    "statistics",
    "balance",
    "shard",
)
"""The jobs in the order they run; each has a section of its own in the recipe."""


class Ingest(StrictModel):
    """Read each original once: sha256, header, decode, proxy."""

    proxy_px: Annotated[int, Field(ge=32, le=8192)] = 1024
    """Longest side of the proxy that scorers, captioners and the report look at, in px."""
    proxy_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """JPEG quality of the proxy."""
    max_megapixels: Annotated[float, Field(gt=0, le=1_000_000)] = 300.0
    """Larger pictures are refused from their header as decompression bombs."""
    stop_after_failures: Annotated[int, Field(ge=1)] | None = 32
    """So many files of one source that cannot be read one after the other, all for the same reason, stop the job: its
    disk or its server is away. null goes on, and each is a row with its reason. Changes no row that can be read."""

    def knobs(self) -> dict[str, Any]:
        """The knobs that decide what the rows hold."""
        return {name: value for name, value in self.resolved().items() if name != "stop_after_failures"}


class Fingerprint(StrictModel):
    """Hash the picture: a 64-bit pHash and the sha256 of its pixels. Nothing to set."""


class Dedup(StrictModel):
    """Group pictures that are the same."""

    max_distance: Annotated[int, Field(ge=0, le=6)] | None = 3
    """Largest Hamming distance between two pHashes that still counts as the same picture, in bits; null finds exact
    copies only. Every pair is found; up to 3 takes minutes for 33 million pictures, beyond it more tables and time."""
    semantic_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest cosine of two embeddings that counts as the same picture; null compares none. Pairs are looked for in
    clusters of about a thousand, so a few are missed. Needs `aesthetic.store_embeddings` and faiss."""
    against: tuple[str, ...] = ()
    """Folders of other datasets, such as evaluation sets: a picture that is also in one of them, by bytes, pixels or
    pHash, is refused. They need to be built up to fingerprint. `~` is the home directory."""

    def against_paths(self) -> tuple[Path, ...]:
        """The folders of `against`; see `DataRecipe.out_path`."""
        return tuple(place_of(for_datasets(path)) for path in self.against)


class Clean(StrictModel):
    """Clean the raw captions: take out HTML, addresses and hashtags, refuse texts that are no captions."""

    languages: tuple[Annotated[str, matching("[a-z]{2,3}", "the code of a language, such as en")], ...] | None = ("en",)
    """ISO 639 codes of the languages that are kept; null keeps all. T5-v1.1, the text encoder of PixArt-Σ, has read
    English only, so a caption in another language would be noise to it. A caption is refused only where its language
    is sure, and the language is in the table `raw_captions` whatever is kept."""
    min_words: Annotated[int, Field(ge=1, le=100)] = 2
    """Fewest words of a raw caption."""

    @field_validator("languages")
    @classmethod
    def _names_one(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError("name at least one language, or null to keep all")
        return value


class Select(StrictModel):
    """Decide which pictures stay. Moving a threshold recomputes only this job."""

    min_short_side_px: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Shortest allowed short side, in upright px. PixArt-Σ's internal set starts at 1024."""
    max_aspect: Annotated[float, Field(ge=1)] = 4.0
    """Largest allowed long side / short side; the widest bucket is 4."""
    max_transparency: Annotated[float, Field(ge=0, le=1)] | None = 0.999
    """Largest allowed share of the picture that is see-through, `images.alpha`, and so is white. A file that is nothing
    but transparency often holds a byte of padding where its alpha would be. Null keeps all."""
    min_aesthetic: Annotated[float, Field(ge=-1000, le=1000)] | None = None
    """Lowest allowed aesthetic score, on the scorer's scale of 1 to 10; null keeps all."""
    min_sharpness: Annotated[float, Field(ge=0)] | None = None
    """Lowest allowed `screens.sharpness`, in grey levels; null keeps all, as in every limit below. A limit needs the
    screen of its name."""
    max_upscale: Annotated[float, Field(ge=1)] | None = None
    """Largest allowed `screens.upscale`: 2 refuses pictures that were enlarged more than twofold."""
    max_border: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed share of the picture that is frame or bars."""
    max_nsfw: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed probability of the classifier `nsfw`."""
    max_watermark: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed probability of the classifier `watermark`."""
    min_clip_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Lowest allowed cosine between picture and raw caption; a picture without a raw caption has none, and stays."""
    max_text_area: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed share of the picture that is writing."""
    max_faces: Annotated[int, Field(ge=0)] | None = None
    """Most faces that are allowed; 0 refuses every picture in which one is seen."""
    max_face_area: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed share of the picture that one face covers."""
    drop_duplicates: bool = True
    """Keep one picture per group: the largest, then the highest score, then the lowest id, so that the order of the
    inputs does not matter. Of copies, which share their id, the file with the best raw caption."""
    inherit_captions: bool = True
    """The picture that stays of a group takes over a raw caption where its own was refused or is missing: the one with
    the most tokens among duplicates that are the same picture by bytes, pixels or pHash, never by embeddings. Its URL
    and licence stay its own; the sample names the image whose caption it carries."""
    subsets: dict[str, str] = {}
    """Named subsets of the kept pictures, as SQL conditions over width, height, short_side, long_side, megapixels,
    aspect (height / width), aesthetic, format, source_name and the columns of `screens` that are computed: for
    example "width * height >= 3840 * 2160 and aesthetic >= 5.5". An image can be in several."""


class Mix(StrictModel):
    """Toss the caption coin: which of the two captions a sample carries."""

    synthetic_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of samples that carry the synthetic caption. The paper: 60 % Share-Captioner, 40 % raw."""
    salt: str = "mix"
    """Names the coin; another salt tosses again."""
    tokenizer: str = "words"
    """Counts tokens, and so decides where a caption of more than 300 is cut. `words` counts words and punctuation marks
    and needs no file; `t5` is PixArt-Σ's own, from the local hub cache; else a folder with a T5 tokenizer. T5 makes
    more tokens of a text than it has words and marks, so with `words` the trainer may still cut some."""


class Nouns(StrictModel):
    """Find the nouns of every caption."""

    extractor: str = "lexicon"
    """`lexicon` is a spaCy pipeline on TextBlob's word list, without a model; else the name of an installed spaCy
    model with a tagger, such as en_core_web_sm."""
    compounds: bool = False
    """Count up to four adjacent nouns as one concept in place of their words, as "coffee table", where all are
    common or all are proper. The paper's Table 1 does not say that it does."""


class Ground(Models):
    """Score how well captions fit their pictures. Evidence only: nothing is refused for it."""

    enabled: bool = False
    """Run the job at all; it needs weights."""
    sources: tuple[Annotated[str, matching("[a-z][a-z0-9_]*", "raw, synthetic or a captioner")], ...] = ("synthetic",)
    """Whose captions are scored: `synthetic`, `raw`, or the name of a further captioner."""
    clip: str | None = None
    """A CLIP model, which scores sentences: a folder, or a hub id in the local cache. Null: CLIP ViT-L/14."""
    nouns: bool = False
    """Also look for every noun with an open-vocabulary detector."""
    detector: str | None = None
    """An OWLv2 model: a folder, or a hub id in the local cache. Null: OWLv2 base."""
    min_noun_score: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A noun whose best box scores less is called ungrounded; 0.1 is the detector's own default."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures per pass."""

    def uses_models(self) -> bool:
        return True

    @field_validator("sources")
    @classmethod
    def _captions_to_score(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one caption source, and each once")
        if "mix" in value:
            raise ValueError("the mix holds the other sources' captions: name those, such as [synthetic, raw]")
        return value


class Statistics(StrictModel):
    """Count the nouns: the paper's Table 1."""

    valid_above: Annotated[int, Field(ge=0)] = 10
    """A distinct noun is valid when it occurs more often than this. The paper: 10."""


class Balance(StrictModel):
    """Weigh images by how common the nouns of their captions are, as MetaCLIP weighs its concepts. Off by default."""

    most_images: Annotated[int, Field(ge=1)] | None = None
    """A noun is common where more images have it in their mixed caption; null balances nothing, and every image weighs
    1. An image all of whose nouns are common weighs 1 - product of (1 - most_images / images of the noun); any other
    weighs 1. MetaCLIP takes 20,000 for 400 million pairs."""
    drop: bool = False
    """Leave an image out of the shards with probability 1 - weight, by a coin of its id. Else it only carries its
    weight, for a trainer to draw by (`data.balance_concepts`)."""

    @model_validator(mode="after")
    def _drops_by_weight(self) -> Self:
        if self.drop and self.most_images is None:
            raise ValueError("balance.drop: there are no weights to drop by; set balance.most_images")
        return self


class Shard(StrictModel):
    """Pack kept pictures into WebDataset tars, one aspect bucket per tar."""

    megabytes: Annotated[float, Field(gt=0, le=1_000_000)] = 512.0
    """A shard is closed once it holds this many MB (10^6 bytes) of images."""
    max_samples: Annotated[int, Field(ge=1)] = 10_000
    """Most samples in a shard."""
    resize_longest_px: Annotated[int, Field(ge=16)] | None = None
    """Re-encode larger pictures to this longest side, as JPEG; null stores the original bytes untouched."""
    resize_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality where a picture is resized."""
    drop_lost: bool = False
    """Leave out a picture that an earlier shard held and that neither this shard nor the original gives any more, and
    any number of originals in a row that cannot be read; else the build stops there, and the earlier shards stay."""


class Run(StrictModel):
    """How the jobs run. None of these knobs changes a byte of the result."""

    runner: Literal["ray", "local"] = "ray"
    """`ray` joins the cluster that RAY_ADDRESS names or starts a local one; `local` runs in this process."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Workers at once; null takes one per CPU of the cluster."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads of each worker that read and decode ahead."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a part is handed out again after its worker or node was lost, or a store did not answer."""
    scratch: LocalPath | None = None
    """A folder of each node for copies of what is read from a store; null takes that of SIGMA_SCRATCH or TMPDIR, as
    commands on a finished dataset do."""
    duckdb_memory: Annotated[str, matching(r"\d+(\.\d+)?(MB|GB|TB)", "500MB, 1.5GB or 1TB")] = DUCKDB_MEMORY
    """Memory that DuckDB may take for a reduce job or for counting the ledger; beyond it DuckDB spills into the
    dataset folder. The process holds some 0.5 GB more."""


class DataRecipe(StrictModel):
    """One recipe makes one dataset."""

    recipe_kind = "a data recipe"

    images: str | tuple[str, ...] | None = None
    """A folder of images, or a list of them; short for entries in `sources`. One added at the end later appends."""
    sources: tuple[Source, ...] = ()
    """Where images come from, each of a `kind`: folder, webdataset, img2dataset, table, hf_dataset or urls, whose knobs
    are in docs/curation.md. A source added at the end later appends parts; it never renumbers."""
    out: Annotated[str, AfterValidator(for_datasets)]
    """The dataset folder to write, or its address in a store: s3://bucket/folder, gs://..., az://..."""
    seed: Seed = 0
    """Seeds the order of samples in the shards."""
    part_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Most inputs per part: the unit of work, of a commit and of a retry. A source of few inputs is cut into sixteen
    parts, of 32 inputs at least, so that all workers have something to do."""
    ingest: Ingest = Ingest()
    fingerprint: Fingerprint = Fingerprint()
    aesthetic: Aesthetic = Aesthetic()
    dedup: Dedup = Dedup()
    clean: Clean = Clean()
    screen: Screen = Screen()
    select: Select = Select()
    caption: Caption = Caption()
    mix: Mix = Mix()
    nouns: Nouns = Nouns()
    ground: Ground = Ground()
    statistics: Statistics = Statistics()
    balance: Balance = Balance()
    shard: Shard = Shard()
    run: Run = Run()

    @model_validator(mode="after")
    def _one_way_to_name_inputs(self) -> Self:
        if bool(self.images) == bool(self.sources):
            raise ValueError("give either images: FOLDER or a list of sources")
        if not self.out:
            raise ValueError("out: name the dataset folder to write")
        named = [(source.kind, source.location()) for source in self.all_sources()]
        if twice := [what for what in named if named.count(what) > 1]:
            raise ValueError(f"sources: the same {twice[0][0]} is named twice")
        return self

    @model_validator(mode="after")
    def _compares_stored_embeddings(self) -> Self:
        if self.dedup.semantic_threshold is not None and not self.aesthetic.store_embeddings:
            raise ValueError(
                "dedup.semantic_threshold: no embeddings are stored; set aesthetic.store_embeddings=true, or "
                "semantic_threshold to null"
            )
        return self

    @model_validator(mode="after")
    def _limits_have_their_screens(self) -> Self:
        computed = self.screen.columns()
        named = {knob: {column} for knob, (column, _) in LIMITS.items() if getattr(self.select, knob) is not None}
        for name, condition in self.select.subsets.items():
            words = set(re.findall(r"\w+", re.sub(r"'[^']*'", "", condition.lower())))
            named[f"subsets.{name}"] = words & {*LIMITED, "classes"}
        for knob, columns in named.items():
            for column in sorted(columns - computed):
                how = self.screen.how_to_compute(column)
                raise ValueError(f"select.{knob}: the screen {column} is not computed; set {how}")
        return self

    def all_sources(self) -> tuple[AnySource, ...]:
        """The sources in order, `images` spelled out."""
        images = (self.images,) if isinstance(self.images, str) else self.images
        return tuple(FolderSource(path=path) for path in images) if images else self.sources

    def with_absolute_paths(self) -> Self:
        """The same recipe for any working directory: the paths of its sources are absolute."""
        images = self.images
        if images is not None:
            images = absolute(images) if isinstance(images, str) else tuple(map(absolute, images))
        sources = tuple(source.with_absolute_paths() for source in self.sources)
        return self.model_copy(update={"images": images, "sources": sources})

    def out_path(self) -> Path:
        """The dataset folder, `~` expanded; of an address in a store its `schemas.files.mount_point`."""
        return place_of(self.out, self.run.scratch)

    def sample_fingerprint(self) -> str:
        """16 hex digits that name the knobs which shape a sample; every sample of a shard carries them. What decides
        whether an image stays, or how shards are cut, is left out: a sample that stays is the same."""
        knobs = self.resolved()
        shaping: dict[str, Any] = {name: knobs[name] for name in ("clean", "mix")} | {"ingest": self.ingest.knobs()}
        shaping["aesthetic"] = self.aesthetic.knobs()
        shaping["inherit_captions"] = self.select.inherit_captions
        shaping["caption"] = self.caption.knobs()
        if self.caption.beside:
            shaping["beside"] = [self.caption.for_extra_captioner(name).knobs() for name in self.caption.beside]
        shaping["resize"] = [self.shard.resize_longest_px, self.shard.resize_quality]
        return fingerprint(shaping)
