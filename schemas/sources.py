"""Where images come from: one strict model per source, chosen by `kind`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.locations import absolute, is_remote, public_url
from schemas.strict import StrictModel


def _without_credentials(path: str) -> str:
    if public_url(path) != path:
        raise ValueError(
            "credentials never stand in a recipe, it is kept beside the dataset: put them where the storage's client "
            "looks for them (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, ~/.netrc, ...)"
        )
    if not path or (is_remote(path) and path.endswith("://")):
        raise ValueError("name a path or a URL")
    return path


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Where = Annotated[str, AfterValidator(_without_credentials)]
"""A local path (`~` is the home directory) or a URL: s3://, gs://, abfs://, hf://, https://, ..."""


class _Source(StrictModel):
    """The knobs of every kind of source."""

    name: str = ""
    """Short name that shards carry as provenance; the last part of the path where empty."""

    def location(self) -> str:
        """An absolute path, a URL or a pattern; names the source in the record of the listing."""
        return absolute(self.path)  # type: ignore[attr-defined]

    def label(self) -> str:
        """The name that shards carry."""
        return self.name or self.location().rstrip("/").rpartition("/")[2] or "root"

    def listing_options(self) -> dict[str, Any]:
        """The knobs that a listing depends on besides `location`; once listed they cannot be changed."""
        return {}

    def with_absolute_paths(self) -> Self:
        """The same source for any working directory."""
        paths = {
            name: getattr(self, name) for name in ("path", "root", "into", "urls") if name in self.model_fields_set
        }
        found: dict[str, Any] = {name: absolute(path) for name, path in paths.items() if isinstance(path, str)}
        found |= {name: tuple(map(absolute, path)) for name, path in paths.items() if isinstance(path, tuple)}
        return self.model_copy(update=found)


class FolderSource(_Source):
    """A folder of images, searched recursively; captions are in files next to them."""

    kind: Literal["folder"] = "folder"
    path: Where
    """A folder, or a pattern of folders and images (`photos/2024-*`): local (`~` is the home directory), or a URL:
    s3://, gs://, abfs://, hf://, https://, ..."""
    follow_links: bool = False
    """Read files behind links that lead out of the folder too. Links to folders are never followed."""

    def listing_options(self) -> dict[str, Any]:
        """Whether links out of the folder are followed; a listing that says nothing followed none."""
        return {"follow_links": True} if self.follow_links else {}


class TarCaptions(StrictModel):
    """Which members of a sample hold its caption."""

    json_fields: tuple[str, ...] = ("caption", "text", "prompt")
    """Fields of the `.json` member; the first that holds text is taken. An empty list reads no `.json`. Its `url` and
    `license` are read as well."""
    txt: bool = True
    """Take the `.txt` member where no field of the `.json` holds text."""


class WebDatasetSource(_Source):
    """WebDataset tars, read by offset and never unpacked; every image member is an input."""

    kind: Literal["webdataset"] = "webdataset"
    urls: Annotated[tuple[Where, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
    """A folder of tars, a tar, or patterns: `tars/{00000..00099}.tar`, `s3://bucket/*.tar`; one or a list."""
    captions: TarCaptions = TarCaptions()
    """Which members of a sample hold its caption."""

    def location(self) -> str:
        return " ".join(absolute(url) for url in self.urls)

    def label(self) -> str:
        return self.name or absolute(self.urls[0]).rpartition("/")[2].removesuffix(".tar")

    def listing_options(self) -> dict[str, Any]:
        return {"captions": self.captions.resolved()}


class Img2datasetSource(_Source):
    """A folder that img2dataset wrote: tars or files with a Parquet table for each, failed downloads included."""

    kind: Literal["img2dataset"] = "img2dataset"
    path: Where
    """Its `output_folder` (output_format `webdataset` or `files`)."""


class Columns(StrictModel):
    """The columns of a table that are read."""

    caption: str | None = None
    """Raw captions."""
    url: str | None = None
    """Where a picture was found; provenance only."""
    license: str | None = None
    """Under which licence it may be used."""


class ImageColumns(Columns):
    """The columns of a table that are read; exactly one of `path` and `bytes` gives the picture."""

    path: str | None = None
    """Paths or URLs of image files; a relative one is below `root`."""
    bytes: str | None = None
    """The image files themselves (Parquet only): binary, or the {bytes, path} of Hugging Face datasets."""

    @model_validator(mode="after")
    def _one_picture(self) -> ImageColumns:
        if (self.path is None) == (self.bytes is None):
            raise ValueError("name the column of the pictures: either path or bytes")
        return self


class TableSource(_Source):
    """Parquet, JSONL or CSV with a row per image."""

    kind: Literal["table"] = "table"
    path: Where
    """A .parquet, .jsonl or .csv file, a folder of them, or a pattern."""
    columns: ImageColumns
    root: Where | None = None
    """The folder that relative paths start from; null is the table's own folder."""

    def listing_options(self) -> dict[str, Any]:
        return {"columns": self.columns.resolved(), "root": None if self.root is None else absolute(self.root)}


class ArrowColumns(Columns):
    """The columns of a Hugging Face dataset that are read."""

    image: str = "image"
    """The pictures: an Image feature that holds its bytes, or binary."""


class HFDatasetSource(_Source):
    """A Hugging Face dataset (or all splits of a DatasetDict) written by `save_to_disk`, read in place."""

    kind: Literal["hf_dataset"] = "hf_dataset"
    path: Where
    """The folder it was saved to; a split's folder takes that split alone."""
    columns: ArrowColumns = ArrowColumns()

    def listing_options(self) -> dict[str, Any]:
        return {"columns": self.columns.resolved()}


class UrlColumns(StrictModel):
    """The columns of a URL list that are read; a .txt has one URL per line and no columns."""

    url: str = "url"
    """The addresses of the pictures."""
    caption: str | None = None
    """Raw captions."""
    license: str | None = None
    """Under which licence each may be used."""


class Img2dataset(StrictModel):
    """How img2dataset downloads; the names are its own. It stores original bytes, whatever these options are."""

    processes_count: Annotated[int, Field(ge=1)] = 2
    """Processes; each downloads one tar at a time."""
    thread_count: Annotated[int, Field(ge=1)] = 64
    """Downloads at once in each process."""
    timeout: Annotated[int, Field(ge=1)] = 10
    """Seconds without an answer after which a download is given up."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a failed download is retried at once; `sigma ingest --retry-failed` does it later."""
    number_sample_per_shard: Annotated[int, Field(ge=2)] = 10_000
    """URLs per tar; a killed download fetches its unfinished tars again."""
    user_agent_token: str | None = None
    """A word that the server sees and that X-Robots-Tag can name."""
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    """Directives of the X-Robots-Tag header by which an owner opts out; [] downloads all the same."""


class UrlSource(_Source):
    """A list of URLs: img2dataset fetches them into tars, which are then read as any tar."""

    kind: Literal["urls"] = "urls"
    path: Where
    """A .txt (one URL per line), .csv, .jsonl or .parquet file, a folder of them, or a pattern."""
    columns: UrlColumns = UrlColumns()
    into: Where | None = None
    """Folder or URL that the tars are fetched to; inside the dataset (`fetched/`) where null."""
    img2dataset: Img2dataset = Img2dataset()

    def listing_options(self) -> dict[str, Any]:
        """The knobs that decide the rows and their contents."""
        fetch = self.img2dataset.resolved()
        fixed = {name: fetch[name] for name in ("number_sample_per_shard", "disallowed_header_directives")}
        into = None if self.into is None else absolute(self.into)
        return {"columns": self.columns.resolved(), "into": into, "img2dataset": fixed}


AnySource = FolderSource | WebDatasetSource | Img2datasetSource | TableSource | HFDatasetSource | UrlSource
KINDS = [source.model_fields["kind"].default for source in get_args(AnySource)]


def _with_kind(value: Any) -> Any:
    """Make a mapping without a `kind` a folder, and refuse a kind that is not known."""
    if isinstance(value, dict):
        value = {"kind": "folder", **value}
        if value["kind"] not in KINDS:
            raise ValueError(f"kind: one of {', '.join(KINDS)}")
    return value


Source = Annotated[AnySource, Field(discriminator="kind"), BeforeValidator(_with_kind)]
"""One entry of `sources`; without a `kind` it is a folder."""
