"""The training recipe: the model, the data and the chain of stages, as strict types that refuse the impossible."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.files import scratch_folder
from schemas.locations import in_home, is_remote
from schemas.strict import LocalPath, Place, Positive, Seed, StrictModel, matching
from schemas.tokens import MAX_TOKENS

LATENT_DOWNSAMPLING = 8
"""Pixels per latent cell and axis, of every codec."""
SDXL_CHANNELS = 4
T5_CHANNELS = 4096
"""Of T5-v1.1-XXL."""
SCRATCH = "scratch"
"""The parent of a stage that starts from random weights."""
FEW_STEPS = (1, 2, 4, 8)
"""Steps that a few-step model draws in."""

Count = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]


def refuse_idle(section: StrictModel, why: str, mend: str, *knobs: str) -> None:
    """Refuse knobs that were set and that nothing reads. Raises ValueError: one has another value than its default."""
    for knob in knobs:
        if (value := getattr(section, knob)) != type(section).model_fields[knob].default:
            raise ValueError(f"{knob} {value} changes nothing while {why}; {mend}, or remove {knob}")


class Model(StrictModel):
    """The transformer; the defaults are PixArt-Σ-XL/2's."""

    depth: Positive = 28
    """Number of blocks."""
    hidden_size: Positive = 1152
    """Width of a token."""
    num_heads: Positive = 16
    """Attention heads; must divide `hidden_size`."""
    patch_size: Positive = 2
    """Latent cells per token and axis."""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Inner width of the MLP over `hidden_size`."""

    @property
    def patch_px(self) -> int:
        """Side of a patch in px of the picture."""
        return LATENT_DOWNSAMPLING * self.patch_size

    @model_validator(mode="after")
    def _widths_divide(self) -> Model:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by 4, which position tables need")
        return self


class Latents(StrictModel):
    """How pixels become latents."""

    codec: Literal["dct", "mixed_dct", "sdxl"] = "dct"
    """`dct`: the lowest coefficients of 8x8-block cosine transforms; works offline, is no learned VAE. `mixed_dct`: the
    same with each channel a mixture of all, to try a change of latents without a VAE. `sdxl`: the SDXL VAE,
    PixArt-Σ's."""
    channels: Annotated[int, Field(ge=1, le=192)] = 12
    """Latent channels. `dct`: coefficients kept per block of 8x8 px over Y, Cb and Cr; 12 decode recognisably, 4 do
    not. `sdxl`: 4, also where it is left out."""
    weights: Annotated[str, AfterValidator(in_home)] | None = None
    """`sdxl`: a folder, or a hub id in the local hub cache. Null: the published id there. Nothing is downloaded."""
    posterior: Literal["sample", "mean"] = "sample"
    """`sdxl`: draw each picture's latents from the encoder's Gaussian, another one per epoch, or take its mean."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`sdxl`: of the VAE's weights and sums."""

    @model_validator(mode="before")
    @classmethod
    def _channels_of_codec(cls, values: Any) -> Any:
        is_sdxl = isinstance(values, dict) and values.get("codec") == "sdxl"
        return {"channels": SDXL_CHANNELS} | values if is_sdxl else values

    @model_validator(mode="after")
    def _fits_codec(self) -> Latents:
        if self.codec == "sdxl" and self.channels != SDXL_CHANNELS:
            raise ValueError(f"channels {self.channels}: the SDXL VAE has {SDXL_CHANNELS}")
        if self.codec != "sdxl" and self.weights is not None:
            raise ValueError("weights are for codec sdxl, dct has none")
        if self.codec != "sdxl" and (self.posterior, self.precision) != ("sample", "fp32"):
            raise ValueError("posterior and precision are for codec sdxl, they change nothing of dct; leave them out")
        return self


class Text(StrictModel):
    """How captions become vectors."""

    encoder: Literal["hashed", "t5"] = "hashed"
    """`hashed`: fixed-seed vectors of hashed words; works offline, knows no language. `t5`: the T5-v1.1-XXL encoder,
    PixArt-Σ's."""
    channels: Positive = 64
    """Width of a caption token. `t5`: 4096 where it is left out."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = MAX_TOKENS
    """Captions are cut to this many tokens."""
    weights: Annotated[str, AfterValidator(in_home)] | None = None
    """`t5`: a folder with encoder and tokenizer, or a hub id in the local hub cache. Null: the published id there.
    Nothing is downloaded."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`t5`: of the encoder's weights and sums."""

    @model_validator(mode="before")
    @classmethod
    def _channels_of_encoder(cls, values: Any) -> Any:
        is_t5 = isinstance(values, dict) and values.get("encoder") == "t5"
        return {"channels": T5_CHANNELS} | values if is_t5 else values

    @model_validator(mode="after")
    def _fits_encoder(self) -> Text:
        if self.encoder == "hashed" and self.weights is not None:
            raise ValueError("weights are for encoder t5, hashed has none")
        if self.encoder == "hashed" and self.precision != "bf16":
            raise ValueError("precision is for encoder t5, it changes nothing of hashed; leave it out")
        return self


class Optimizer(StrictModel):
    """CAME with a constant learning rate after a linear warm-up."""

    lr: Annotated[float, Field(gt=0)] = 2e-5
    """Learning rate after the warm-up; a stage may set its own. CAME's first steps move about ten times this."""
    betas: tuple[Share, Share, Share] = (0.9, 0.999, 0.9999)
    """Decay of the update's mean, the squared gradient and the squared instability."""
    eps: tuple[float, float] = (1e-30, 1e-16)
    """Added to the squared gradient and to the squared instability."""
    clip_threshold: Annotated[float, Field(gt=0)] = 1.0
    """Largest root mean square of a tensor's normalised gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled, per unit of learning rate."""
    warmup_steps: Count = 1000
    """Steps over which the learning rate grows from 0; a stage may set its own."""
    gradient_clip: Annotated[float, Field(gt=0)] = 0.01
    """Largest global norm of the gradient."""

    @model_validator(mode="after")
    def _betas_below_one(self) -> Optimizer:
        if max(self.betas) >= 1:
            raise ValueError(f"betas {self.betas} must be below 1")
        return self


class Data(StrictModel):
    """How samples become batches."""

    batch: Positive = 64
    """Pictures per optimizer step over all processes; a stage may set its own."""
    micro_batch: Positive | None = None
    """Most pictures per forward pass of one process; more are accumulated. Null: no accumulation."""
    timesteps_per_image: Positive = 1
    """Noise draws per picture and step; above 1 a decoded picture is used that many times."""
    captions: Literal["mix", "toss"] = "mix"
    """`mix`: read the caption that the dataset chose and cut, its `.txt`, in every epoch. `toss`: choose between the
    raw and the synthetic caption anew in every epoch, each cut as the mix cuts."""
    synthetic_share: Share = 0.6
    """`toss`: chance that the synthetic caption is read in an epoch, where there are both; the paper's 0.6."""
    balance_concepts: bool = False
    """Draw pictures by their weight in the index, which says how uncommon the concepts of their captions are: an epoch
    has as many of a shape as their weights sum up to, others each time. Needs a dataset with `balance.most_images`."""
    caption_drop: Share = 0.1
    """Chance that the caption is replaced by the null caption, for classifier-free guidance."""
    window: Positive = 65536
    """Rows that are shuffled together after the shards are; bounds how far reads jump."""
    lanes: Positive = 1
    """Equal slices of a batch, each from shards of its own, so that each of several nodes reads the shards of its
    slices and not nearly all. Best a multiple of the number of nodes. It is part of the order of the samples: it stays
    while nodes come and go."""
    threads: Positive = 2
    """Threads that read and decode ahead, per process."""
    prefetch: Positive = 4
    """Batches kept ready, per process."""
    cache_mb: Count = 256
    """Memory for decoded pictures, per process, in MiB; a data set that fits is decoded once per stage."""
    cache_gb: Annotated[float, Field(ge=0)] = 16.0
    """Disk for copies of shards, per machine, in GB, where the dataset is in a store. 0 copies none: each sample is
    then a request of its own."""
    cache_dir: LocalPath | None = None
    """Folder of copies of what is in a store, on a disk of this machine. Null: one in that of SIGMA_SCRATCH, or in the
    system's for temporary files."""
    max_upscale: Annotated[float, Field(ge=1)] | None = None
    """Most times that a picture may be enlarged to cover its bucket; others are left out. 1 leaves out every picture
    that does not reach the resolution, null none. A stage may set its own."""
    max_repeats: Positive | None = None
    """Most times that a picture may be repeated to fill a batch; buckets with fewer pictures than a batch divided by
    this are left out. 1 keeps the buckets that hold a batch, null all."""
    max_damaged: Count = 100
    """Samples that may fail to decode, per process and run, before training stops."""

    @model_validator(mode="after")
    def _share_is_of_a_toss(self) -> Data:
        if self.captions == "mix" and self.synthetic_share != Data.model_fields["synthetic_share"].default:
            raise ValueError(
                "synthetic_share acts only where captions is toss: set captions to toss, or remove synthetic_share and "
                "train on the captions that the dataset chose (its share is mix.synthetic_share of the data recipe)"
            )
        return self


def _yaml_off(value: Any) -> Any:
    return "off" if value is False else value  # YAML reads an unquoted off as false


class Features(StrictModel):
    """Latents and captions that `sigma encode` has encoded once, so that training need not."""

    use: Annotated[Literal["auto", "require", "off"], BeforeValidator(_yaml_off)] = "auto"
    """`auto`: use the sets that exist for a stage and encode the rest while training. `require`: refuse to train
    without them. `off`: encode while training."""
    folder: LocalPath | None = None
    """Folder of the sets. Null: `features/` in the dataset."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """The type of a stored value. `bf16` takes half the space and rounds what an encoder gives in fp32; what it gives
    in bf16 is kept to the bit. With `fp32` training is the same with and without features."""
    captions_at_once: Positive | None = None
    """Most captions that go through the text encoder together while encoding; only captions of one length do, so none
    is padded, but a GPU rounds the last bits otherwise than for one alone. Null: 1 on a CPU, 32 on a GPU."""
    pictures_at_once: Positive | None = None
    """Most pictures of one shape that go through the VAE together while encoding, with the same proviso. Null: 1 on a
    CPU; on a GPU as many as hold 4 megapixels, at least 1."""
    runner: Literal["ray", "local"] = "ray"
    """`ray`: shards are encoded in parallel on a Ray cluster. `local`: one after the other in this process."""
    workers: Positive | None = None
    """Processes that encode. Null: as many as GPUs allow, or one per CPU; each loads an encoder."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """GPUs that each takes. Null: one where the cluster has any, else none."""
    retries: Count = 3
    """How often a shard is handed out again after its worker or node was lost."""


class Ema(StrictModel):
    """The running average of the weights that sampling and the next stage use."""

    enabled: bool = True
    """Keep an average at all."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Weight of the past per step, once warmed up."""
    warmup: bool = True
    """Grow the decay as (1 + step) / (10 + step) until it reaches `decay`."""

    @model_validator(mode="after")
    def _acts(self) -> Ema:
        if not self.enabled:
            refuse_idle(self, "enabled is false", "set enabled to true", "decay", "warmup")
        return self


class KVCompression(StrictModel):
    """Which blocks compress keys and values."""

    layers: tuple[Count, ...]
    """0-based block numbers; the paper's are the last half, 14 to 27."""
    ratio: Annotated[int, Field(ge=2, lt=2**31)] = 2
    """Per axis: tokens shrink by ratio²."""

    @model_validator(mode="after")
    def _some_layers(self) -> KVCompression:
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers {list(self.layers)} must name at least one block, each once")
        return self


def few_timesteps(steps: int, timestep: int) -> list[int]:
    """Whole noise levels from `timestep` down in equal steps: 999, 749, 499 and 249 for four steps from 999."""
    return [(timestep + 1) * (steps - number) // steps - 1 for number in range(steps)]


class Distil(StrictModel):
    """Latent consistency distillation (arXiv 2310.04378, of PixArt 2401.05252): the stage learns to draw in 1, 2, 4 or
    8 steps, without guidance, what its parent draws in many with it."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Classifier-free guidance of the parent's pictures, which is in the stage's own from then on. Null:
    `sample.guidance`."""
    skip: Literal[1, 5, 25, 125] = 25
    """Timesteps that one step of the parent spans. The stage learns every so-manieth timestep, and these are such that
    1, 2, 4 and 8 steps meet no others."""
    huber: Annotated[float, Field(gt=0)] = 0.001
    """The loss is squared below a difference of about this, and linear above."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the stage's running average, in place of `ema.decay`: the average says what the stage should have
    answered. 0: its last weights do."""


@dataclass(frozen=True)
class Sampling:
    """How pictures of a stage are drawn. `guidance`: of a second pass per step, for the null caption; None where there
    is no such pass. `timestep`: noise level that a few-step model takes pure noise for; None for a DPM-Solver++."""

    steps: int
    guidance: float | None
    timestep: int | None

    @property
    def sampler(self) -> str:
        return "dpm-solver++" if self.timestep is None else "consistency"

    @property
    def calls(self) -> int:
        """Passes of the model per picture."""
        return self.steps * (1 if self.guidance in (None, 1) else 2)

    @property
    def timesteps(self) -> list[int]:
        """Noise levels that a few-step model is called at."""
        return few_timesteps(self.steps, self.timestep or 0)


class Stage(StrictModel):
    """One link of the weak-to-strong chain."""

    name: Annotated[str, matching("[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, _ and -")]
    """Letters, digits, `_` and `-`; names the stage's folder."""
    parent: Annotated[str, AfterValidator(in_home)] | None = None
    """Where the weights come from: an earlier stage's name, a weights file or folder (a path with a `/` or a suffix),
    or `scratch`. Null: the stage before, and `scratch` for the first."""
    weights: Literal["ema", "raw"] = "ema"
    """Which of the parent's weights: their running average, where it has one, or the last ones."""
    resolution: Positive
    """Side in px of the square with as many pixels as a training picture."""
    pe_interpolation: Annotated[float, Field(gt=0)] | None = None
    """Position-embedding interpolation. Null: resolution / 512, the paper's law."""
    kv_compression: KVCompression | None = None
    """KV-token compression, or none."""
    steps: Annotated[int, Field(gt=0, lt=10**8)]
    """Optimizer steps."""
    batch: Positive | None = None
    """Pictures per optimizer step over all processes. Null: `data.batch`."""
    timesteps_per_image: Positive | None = None
    """Noise draws per picture and step. Null: `data.timesteps_per_image`."""
    max_upscale: Annotated[float, Field(ge=1)] | None = None
    """Most times that a picture may be enlarged. Null: `data.max_upscale`."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate. Null: `optimizer.lr`."""
    warmup_steps: Count | None = None
    """Warm-up in steps. Null: `optimizer.warmup_steps`."""
    where: str | None = None
    """SQL condition on the columns of the shard index, for example `width * height >= 1048576`. Null: every sample."""
    multi_aspect: bool = True
    """Crop to the nearest of the 40 aspect buckets; false crops to the square."""
    distil: Distil | None = None
    """Makes a few-step model of the parent. Null: the stage learns from the pictures alone."""

    @property
    def interpolation(self) -> float:
        return self.resolution / 512 if self.pe_interpolation is None else self.pe_interpolation


class Sample(StrictModel):
    """Pictures that training draws of itself."""

    prompts: tuple[str, ...] = ()
    """Prompts of the pictures drawn during training."""
    every: Count = 0
    """Steps between them; 0 draws none."""
    steps: Positive = 20
    """Steps of the DPM-Solver++. A few-step model takes 1, 2, 4 or 8, and 4 where this has its default."""
    guidance: Annotated[float, Field(ge=0)] = 4.5
    """Classifier-free guidance; 1 is none. A few-step model has it in its weights."""
    timestep: Annotated[int, Field(ge=0, le=999)] | None = None
    """Says that the weights are a few-step model, and the noise level at which it takes pure noise: 400 for the one
    step of Nitro-1-PixArt. Null: a stage with `distil` starts at 999, any other is drawn by the DPM-Solver++."""

    def sampling(self, name: str, *, few_steps: bool) -> Sampling:
        """How pictures of a model are drawn.

        Args:
            name: of the model, for the message.
            few_steps: whether the model was distilled.

        Raises:
            ValueError: a few-step model cannot take as many steps as this says.
        """
        if not few_steps and self.timestep is None:
            return Sampling(self.steps, self.guidance, None)
        steps = 4 if self.steps == Sample.model_fields["steps"].default else self.steps
        if steps not in FEW_STEPS:
            raise ValueError(
                f"sample.steps {steps}: {name} is a few-step model, which draws in 1, 2, 4 or 8; set sample.steps=4"
            )
        return Sampling(steps, None, 999 if self.timestep is None else self.timestep)


class Validation(StrictModel):
    """The loss of the averaged weights on a fixed grid of pictures, timesteps and noise."""

    every: Count = 0
    """Steps between them, a multiple of `log_every`; 0 computes none."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pictures that is held out: never trained on, and the only ones that the grid takes. A coin of the
    image id decides, the same for every stage and seed. 0 takes the grid from the training pictures."""
    samples: Positive = 16
    """Pictures, spread evenly over those that are held out, or over the stage's own; fewer where there are fewer."""
    timesteps: Annotated[tuple[Annotated[int, Field(ge=0, le=999)], ...], Field(min_length=1)] = (
        100,
        300,
        500,
        700,
        900,
    )
    """Noise levels that each picture is tried at."""

    @model_validator(mode="after")
    def _acts(self) -> Validation:
        if not self.every:
            refuse_idle(self, "every is 0", "set every", "share", "samples", "timesteps")
        return self


class Evaluation(StrictModel):
    """Pictures that the averaged weights draw while training, measured against the dataset's own."""

    every: Count = 0
    """Steps between them, a multiple of `log_every`; 0 measures none."""
    pictures: Annotated[int, Field(ge=4, lt=2**31)] = 64
    """Pictures that are drawn each time, from captions spread evenly over what is held out, or over the stage where
    nothing is. The numbers are called quick, with how many pictures they are of: they compare points of this curve, and
    are no FID of a model."""

    @model_validator(mode="after")
    def _acts(self) -> Evaluation:
        if not self.every:
            refuse_idle(self, "every is 0", "set every", "pictures")
        return self


class Wandb(StrictModel):
    """Weights & Biases, which gets the metrics that TensorBoard gets; it needs the package wandb."""

    mode: Annotated[Literal["off", "offline", "online"], BeforeValidator(_yaml_off)] = "off"
    """`offline` keeps the runs in the stage's folder, for `wandb sync`; `online` sends them as they come."""
    project: Annotated[str, Field(min_length=1)] = "sigma"
    """The project of the runs; each stage is a run."""

    @model_validator(mode="after")
    def _acts(self) -> Wandb:
        if self.mode == "off":
            refuse_idle(self, "mode is off", "set mode to offline or online", "project")
        return self


class TrainingRecipe(StrictModel):
    """Everything that a training run depends on."""

    recipe_kind = "a training recipe"

    dataset: Place
    """Dataset folder, or its address in a store (`s3://bucket/folder`); its `shards/index.parquet` is read."""
    out: Place
    """Folder of the run, or its address in a store; each stage gets a folder of its own inside."""
    seed: Seed = 0
    """Every random choice is a function of this, the stage, the epoch and the image's id."""
    model: Model = Model()
    """The transformer."""
    latents: Latents = Latents()
    """The codec of the pictures."""
    text: Text = Text()
    """The encoder of the captions."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""
    data: Data = Data()
    """How batches are made."""
    features: Features = Features()
    """What is encoded before training, and whether it is used."""
    ema: Ema = Ema()
    """The average of the weights."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the matrix products; weights, optimizer and loss are fp32 always."""
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    """What a forward pass keeps for the backward pass: `none` of it is computed again, `selective` keeps the outputs of
    matrix products and attention, `full` each block's input alone. `auto` takes the first of these that fits the GPU,
    by formula, and logs why; on a CPU it is `none`. Changes memory and time, no number."""
    compile: bool = False
    """Compile the transformer's block with `torch.compile`; needs a C++ compiler on a CPU. Rounds differently.
    `selective` does not see into compiled code and may compute more again than it says."""
    exact_sums: bool = False
    """Sum the gradients of micro-batches in float64: losses then do not depend on the number of processes. Needs a
    `data.micro_batch` that divides each one's share. Costs memory for one more float64 copy of the weights, and
    the overlap of sums and backward pass; on a CPU each process computes with one thread."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: `ddp` keeps a copy of everything on each; `fsdp` (FSDP2) slices weights, their average,
    gradients and optimizer into slices, for models or GPUs where a copy does not fit, and costs traffic. Checkpoints
    are the same whole file, so the mode may change between runs."""
    process_timeout_s: Positive = 600
    """With several processes: one that the others wait for longer than this counts as lost. Drawing samples, which
    the first process does alone, must fit into it."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """The weak-to-strong chain, in order."""
    sample: Sample = Sample()
    """Pictures drawn during training, and how any are sampled."""
    validation: Validation = Validation()
    """The validation loss."""
    evaluation: Evaluation = Evaluation()
    """FID, KID, precision and recall of a few pictures, where `sigma weights get fid-inception` was run."""
    wandb: Wandb = Wandb()
    """Metrics in Weights & Biases as well."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; a multiple of `log_every`. The last step of a stage has one always."""
    keep_checkpoints: Positive = 2
    """Checkpoints kept per stage, the newest."""
    log_every: Positive = 20
    """Steps between lines of metrics; each averages over the steps since the line before."""

    @model_validator(mode="after")
    def _possible(self) -> TrainingRecipe:
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every {self.checkpoint_every} is no multiple of log_every {self.log_every}; "
                "a resumed run could not repeat its metrics"
            )
        for section in ("validation", "evaluation"):
            if (every := getattr(self, section).every) % self.log_every:
                raise ValueError(
                    f"{section}.every {every} is no multiple of log_every {self.log_every}; its numbers are part of a "
                    "line of the metrics"
                )
        if self.exact_sums and self.parallel == "fsdp":
            raise ValueError("exact_sums sums whole gradients, parallel fsdp never has them; set parallel: ddp")
        for number, stage in enumerate(self.stages):
            self._check_stage(number, stage)
        self._check_lanes()
        if not is_remote(self.dataset):
            refuse_idle(self.data, "dataset is a folder", "name a dataset in a store", "cache_gb")
            if not is_remote(self.out):
                refuse_idle(self.data, "dataset and out are folders", "name one in a store", "cache_dir")
        if self.sample.every and not self.sample.prompts:
            raise ValueError(
                f"sample.every {self.sample.every} draws nothing without sample.prompts; name some, or set 0"
            )
        if self.sample.prompts and not self.sample.every:
            raise ValueError(
                "sample.prompts are never drawn while sample.every is 0; set it, or use sigma sample --prompt"
            )
        longest = max(stage.steps for stage in self.stages)
        for knob, every in self._cadences():
            if every > longest:
                raise ValueError(f"{knob} {every} is above the steps of every stage, at most {longest}; it never comes")
        return self

    def _cadences(self) -> list[tuple[str, int]]:
        return [(f"{name}.every", getattr(self, name).every) for name in ("sample", "validation", "evaluation")]

    def said_of(self, stage: Stage) -> list[str]:
        """What the knobs of a stage do less of than one may think, a sentence each."""
        knobs, said = self.optimizer_of(stage), []
        if knobs.warmup_steps > stage.steps:
            reached = knobs.lr * stage.steps / knobs.warmup_steps
            said.append(
                f"the warm-up of {knobs.warmup_steps:,} steps is longer than the stage, so lr grows to {reached:.3g} "
                f"and never reaches {knobs.lr:g}"
            )
        for knob, every in self._cadences():
            if every > stage.steps:
                said.append(f"{knob} is {every:,} and the stage has {stage.steps:,} steps, so it never comes here")
        return said

    def _check_stage(self, number: int, stage: Stage) -> None:
        where = f"stages.{number} ({stage.name})"
        earlier = [other.name for other in self.stages[:number]]
        if stage.name in earlier:
            raise ValueError(f"{where}: an earlier stage has the same name")
        unit = self.model.patch_px
        if stage.resolution % unit:
            raise ValueError(f"{where}: resolution {stage.resolution} is no multiple of {unit} px, the side of a patch")
        if stage.kv_compression is not None:
            outside = [layer for layer in stage.kv_compression.layers if layer >= self.model.depth]
            if outside:
                raise ValueError(f"{where}: kv_compression layers {outside} are outside 0..{self.model.depth - 1}")
        parent = stage.parent
        named = {other.name: other for other in self.stages[:number]}
        self._check_distil(where, stage, named.get(self.parent_of(stage)))
        if self.parent_of(stage) == SCRATCH:
            refuse_idle(stage, f"{where} starts from scratch", "name a parent", "weights")
        if parent is None or parent == SCRATCH or parent in earlier or is_path(parent):
            return
        if parent in [other.name for other in self.stages[number:]]:
            raise ValueError(f"{where}: parent {parent!r} comes later in the list; move it before this stage")
        near = difflib.get_close_matches(parent, earlier, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"earlier stages: {', '.join(earlier) or 'none'}"
        raise ValueError(f"{where}: parent {parent!r} is no earlier stage, nor a path (with a / or a suffix); {hint}")

    def _check_lanes(self) -> None:
        lanes, batches = self.data.lanes, [self.data_of(stage).batch for stage in self.stages]
        divisor = math.gcd(*batches)
        if divisor % lanes:
            near = min((n for n in range(1, divisor + 1) if divisor % n == 0), key=lambda n: (abs(n - lanes), -n))
            raise ValueError(
                f"data.lanes {lanes} does not divide a batch of {next(b for b in batches if b % lanes)}, which has as "
                f"many equal slices; the nearest that divides the batch of every stage is {near}"
            )

    def _check_distil(self, where: str, stage: Stage, parent: Stage | None) -> None:
        if parent is not None and parent.distil is not None:
            raise ValueError(
                f"{where}: its parent {parent.name} is a few-step model, which nothing learns from; set "
                f"parent: {self.parent_of(parent)}"
            )
        if stage.distil is None:
            return
        if self.parent_of(stage) == SCRATCH:
            raise ValueError(f"{where}: distil learns from a trained model; name a parent, a stage or weights on disk")
        if parent is not None:
            for knob in ("resolution", "interpolation", "kv_compression"):
                if getattr(stage, knob) != getattr(parent, knob):
                    name = "pe_interpolation" if knob == "interpolation" else knob
                    raise ValueError(
                        f"{where}: distil learns from its parent as it is, and {name} differs from that of "
                        f"{parent.name}; give both the same"
                    )
            if not self.data.caption_drop and self.distil_of(stage).guidance != 1:
                raise ValueError(
                    f"{where}: guidance needs a parent that knows the null caption, and data.caption_drop is 0; set "
                    "distil.guidance: 1, or train the parent with a caption_drop"
                )

    def parent_of(self, stage: Stage) -> str:
        """The name of the parent stage, a path to weights, or `scratch`."""
        if stage.parent is not None:
            return stage.parent
        number = self.stages.index(stage)
        return self.stages[number - 1].name if number else SCRATCH

    def data_of(self, stage: Stage) -> Data:
        """The data section with the stage's own values in it."""
        own = {knob: getattr(stage, knob) for knob in ("batch", "timesteps_per_image", "max_upscale")}
        own["caption_drop"] = None if stage.distil is None else 0.0  # no picture is drawn without its caption any more
        return self.data.model_copy(update={knob: value for knob, value in own.items() if value is not None})

    def optimizer_of(self, stage: Stage) -> Optimizer:
        """The optimizer section with the stage's own values in it."""
        own = {"lr": stage.lr, "warmup_steps": stage.warmup_steps}
        return self.optimizer.model_copy(update={knob: value for knob, value in own.items() if value is not None})

    def ema_of(self, stage: Stage) -> Ema:
        """The section of the average with the stage's own decay in it."""
        return self.ema if stage.distil is None else self.ema.model_copy(update={"decay": stage.distil.ema})

    def distil_of(self, stage: Stage) -> Distil:
        """The distillation of a stage with its guidance as a number."""
        assert stage.distil is not None
        own = stage.distil.guidance
        return stage.distil.model_copy(update={"guidance": self.sample.guidance if own is None else own})

    def sampling_of(self, stage: Stage) -> Sampling:
        """How pictures of a stage are drawn. Raises ValueError: a few-step model cannot take the recipe's number of
        steps."""
        return self.sample.sampling(f"stage {stage.name}", few_steps=stage.distil is not None)

    @property
    def dataset_folder(self) -> Path:
        """The dataset folder, or that of the copies of a dataset in a store."""
        return self.folder_of(self.dataset)

    @property
    def out_folder(self) -> Path:
        """The folder of the run. The files of a run in a store are written there first."""
        return self.folder_of(self.out)

    def folder_of(self, place: str) -> Path:
        """A path as it is; for an address in a store the folder of this machine that holds copies of what is there."""
        if not is_remote(place):
            return Path(place)
        base = self.data.cache_dir or scratch_folder() / f"sigma-copies-{os.getuid()}"
        return base / hashlib.sha256(place.encode()).hexdigest()[:16]

    @property
    def features_folder(self) -> Path:
        return self.features.folder or self.dataset_folder / "features"

    def stage_folder(self, stage: Stage) -> Path:
        """`out/<nn>-<name>`, numbered from 01."""
        return self.out_folder / f"{self.stages.index(stage) + 1:02d}-{stage.name}"

    def stage_named(self, name: str) -> Stage:
        """The stage of this name. Raises ValueError: there is none; the message names those that exist."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"no stage {name!r} in the recipe; its stages are {', '.join(s.name for s in self.stages)}")


def is_path(parent: str) -> bool:
    """Whether a stage's parent names weights on disk rather than a stage."""
    return "/" in parent or Path(parent).suffix != ""
