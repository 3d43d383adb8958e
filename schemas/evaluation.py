"""The evaluation recipe: models, prompts, reference and metrics, every knob of `sigma evaluate` with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.captioners import ChatSection
from schemas.locations import absolute, for_datasets, on_disk
from schemas.strict import Positive, Seed, StrictModel, matching

Protocol = Literal["clean", "pytorch", "tensorflow", "torchmetrics", "sana-512", "sana-1024"]
ModelName = Annotated[str, matching("[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, ., _ and -")]


class Prompts(StrictModel):
    """Where prompts come from."""

    source: str
    """A dataset, an evaluation set, a text, JSONL or CSV file, or the files of MJHQ-30K, GenEval, DPG-Bench or
    T2I-CompBench."""
    kind: str = "auto"
    """What the source is; `auto` sees it from the files. docs/evaluation.md lists the kinds."""
    per_part: Positive = 64
    """Prompts per part: the unit of work that a worker takes. Changes the batches, and so the last bits of pictures."""


OnDisk = Annotated[str, AfterValidator(on_disk)]


class Model(StrictModel):
    """What draws: a training run or an export of it, a pipeline of diffusers, or a folder of pictures that others have
    drawn."""

    recipe: str | None = None
    """A training recipe, whose checkpoints draw: a file, or the name of one that comes with Sigma."""
    overrides: tuple[str, ...] = ()
    """Knobs of that recipe, as on the command line: [out=runs/second]."""
    stage: str | None = None
    """The stage of the recipe; null is the last one that has a checkpoint."""
    checkpoints: Literal["last", "all"] | tuple[Positive, ...] = "last"
    """Which checkpoints of the stage draw, each in rows of its own: the last one, all that are kept, or these steps."""
    runtime: OnDisk | None = None
    """With `recipe`: a folder of `sigma export`, which draws in place of a checkpoint. The recipe says the encoders,
    the steps and the guidance."""
    diffusers: OnDisk | None = None
    """A folder with a pipeline of diffusers: SD 1.5, SDXL, Playground, PixArt-α or -Σ. Its weights are safetensors."""
    pictures: OnDisk | None = None
    """A folder of pictures, each named by the id of its prompt; of several per prompt `<id>_0`, `<id>_1`, ..."""
    resolution: Positive | None = None
    """Side of the square that is drawn, in px; null is that of the stage or of the pipeline."""
    steps: Positive | None = None
    """Steps of the sampler; null is what the training recipe or the pipeline says."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Classifier-free guidance; null is what the training recipe or the pipeline says."""
    timestep: Annotated[int, Field(ge=0, le=999)] | None = None
    """The noise level at which a few-step model takes pure noise, as its makers say it: 400 for the one step of
    Nitro-1-PixArt and of PixArt-α-DMD. Null is what the training recipe or the pipeline says."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """In which a pipeline of diffusers computes; the training recipe says it for its own."""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        named = [knob for knob in ("recipe", "diffusers", "pictures") if getattr(self, knob) is not None]
        if len(named) != 1:
            raise ValueError("name one of recipe, diffusers and pictures")
        kind = "runtime" if self.runtime is not None and named == ["recipe"] else named[0]
        unused: tuple[str, ...] = {
            "recipe": ("precision",),
            "runtime": ("stage", "checkpoints", "precision"),
            "diffusers": ("overrides", "stage", "checkpoints", "runtime"),
            "pictures": tuple(knob for knob in type(self).model_fields if knob != "pictures"),
        }[kind]
        for knob in unused:
            if getattr(self, knob) != type(self).model_fields[knob].default:
                raise ValueError(f"{knob} changes nothing of a model of {kind}; remove it")
        return self


class Draw(StrictModel):
    """How pictures are drawn. A picture depends on its prompt's id, the seed and its number, on nothing around it."""

    seed: Seed = 0
    """Of the noise."""
    pictures_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    """Pictures of each prompt: GenEval and DPG-Bench take 4, T2I-CompBench 10."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 4
    """Pictures drawn at once; each batch is on the disk before the next. Batches of another size round differently, in
    the last bits."""


class Reference(StrictModel):
    """What pictures are compared with."""

    pictures: str | None = None
    """A dataset, an evaluation set, MJHQ-30K's folder, or any folder of pictures."""
    where: str | None = None
    """Of a dataset the samples that meet this SQL condition over the columns of the index."""
    features: Annotated[str, AfterValidator(for_datasets)] | None = None
    """Folder of its features, which are made once; null is `evaluation/` below `pictures`."""
    moments: OnDisk | None = None
    """In place of pictures: a .npz with `mu` and `sigma` as other programs write them. Gives FID alone."""
    moments_protocol: Protocol | None = None
    """The protocol that they were made with; nothing in the file says it."""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.pictures is None) == (self.moments is None):
            raise ValueError("name either pictures or moments")
        if (self.moments is None) != (self.moments_protocol is None):
            raise ValueError("moments and moments_protocol go together: nothing in the file says how it was made")
        return self


class GenEval(StrictModel):
    """The detector of GenEval, which counts where the prompts are GenEval's."""

    detector: str | None = None
    """A Mask2Former for the instances of COCO: a folder, or a hub id in the local cache. Null measures no GenEval and
    says how to get one. Colours are named by `metrics.clip`."""


class Dpg(StrictModel):
    """Who answers the questions of DPG-Bench, which counts where the prompts are DPG-Bench's."""

    vqa: str | None = None
    """A BLIP that answers questions: a folder, or a hub id in the local cache."""
    endpoint: ChatSection | None = None
    """In its place a model behind a chat server, with every knob of captioning's endpoint but the prompt."""
    rules: Literal["fixed", "published"] = "fixed"
    """`published` counts as the benchmark's code does, faults included (docs/evaluation.md); `fixed` counts all
    questions and pictures. Changing it asks nothing again."""

    @model_validator(mode="after")
    def _one_answerer(self) -> Self:
        if self.vqa is not None and self.endpoint is not None:
            raise ValueError("name vqa or endpoint, not both")
        if self.endpoint is not None and (not self.endpoint.servers() or self.endpoint.model is None):
            raise ValueError("endpoint needs the server (endpoint.url) and its model (endpoint.model)")
        return self


class Metrics(StrictModel):
    """What is measured. A network whose weights are not on this machine gives rows that say how to get them."""

    protocols: tuple[Protocol, ...] = ("clean",)
    """How pictures come to Inception, for FID, KID, precision and recall; values of different ones do not compare.
    Under `sana-512` and `sana-1024` pictures that are drawn here pass through a JPEG of quality 75, as Sana's have."""
    clip_score: bool = True
    """Measure how well pictures fit their prompts."""
    clip: str | None = None
    """The CLIP of CLIP-Score: a folder, or a hub id in the local cache. Null: CLIP ViT-L/14."""
    cmmd: bool = True
    """Measure CMMD against the reference."""
    cmmd_clip: str | None = None
    """The CLIP of CMMD. Null: CLIP ViT-L/14-336."""
    geneval: GenEval = GenEval()
    """Measure GenEval, where the prompts are its own."""
    dpg: Dpg = Dpg()
    """Measure DPG-Bench, where the prompts are its own."""
    by_category: bool = True
    """Measure each category of the prompts as well."""
    allow_singular: bool = False
    """Give the FID of a category with fewer pictures than features, flagged; else it is refused."""
    allow_missing: bool = False
    """Measure the pictures that are there where some are missing or cannot be read; the rows say how many."""
    allow_contaminated: bool = False
    """Measure although the reference has pictures that a model was trained on; the rows say how many."""


class Run(StrictModel):
    """How it runs. None of these knobs changes a row."""

    runner: Literal["ray", "local"] = "local"
    """`ray` joins the cluster that RAY_ADDRESS names or starts a local one; `local` runs in this process."""
    workers: Positive | None = None
    """Workers at once; null takes one per CPU or GPU of the cluster."""
    threads: Annotated[int, Field(ge=1, le=64)] = 4
    """Threads of each worker that decode and resize."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a part is handed out again after its worker was lost."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else a name of torch, such as cuda:1 or cpu."""


class EvaluationRecipe(StrictModel):
    """One recipe makes one evaluation: pictures of some models for the same prompts, and what they measure."""

    recipe_kind = "an evaluation recipe"

    out: Annotated[str, AfterValidator(for_datasets)]
    """The folder to write."""
    prompts: Prompts
    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
    """What draws, by the names in the table of results."""
    reference: Reference | None = None
    """What the pictures are compared with; null measures CLIP-Score alone."""
    draw: Draw = Draw()
    metrics: Metrics = Metrics()
    run: Run = Run()

    def out_path(self) -> Path:
        from schemas.files import place_of

        return place_of(self.out)

    def with_absolute_paths(self) -> Self:
        """The same recipe for any working directory."""

        def placed(section: StrictModel, *knobs: str) -> dict[str, str]:
            return {knob: absolute(getattr(section, knob)) for knob in knobs if getattr(section, knob) is not None}

        models = {}
        for name, model in self.models.items():
            is_shipped = model.recipe is not None and not Path(model.recipe).exists()
            knobs = ("runtime", "diffusers", "pictures") + (() if is_shipped else ("recipe",))
            models[name] = model.model_copy(update=placed(model, *knobs))
        reference = self.reference
        if reference is not None:
            reference = reference.model_copy(update=placed(reference, "pictures", "features", "moments"))
        prompts = self.prompts.model_copy(update=placed(self.prompts, "source"))
        return self.model_copy(update={"models": models, "reference": reference, "prompts": prompts})
