"""``content:`` of a configuration: which texts and posters become vectors, by which encoders, and how they fuse.

What the report about the vectors looks at stands there too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from recsys_ray.base.proportion import MOST
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Settings

ImageEncoderName = Literal["palette", "resnet18", "resnet50", "resnet101", "efficientnet_b0", "efficientnet_lite0"]
Kind = Literal["text", "image"]

TEXT_FIELDS = ["title", "overview", "genres", "keywords", "cast", "director", "tags", "text"]
IMAGENET = "imagenet"
MOST_MEGAPIXELS = 178
"""Pillow refuses larger images whatever is set."""


class TextSettings(Settings):
    """Which columns of the catalogue are embedded, and by which sentence encoder."""

    model: str = "all-MiniLM-L6-v2"
    """A model of sentence-transformers by name, or the directory of one."""
    fields: list[str] = Field(default=TEXT_FIELDS, min_length=1)
    """Columns in the order in which they are written into the text; those that the catalogue lacks are left out."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Longer texts are cut here; null takes the model's own limit."""
    batch_size: int = Field(default=64, ge=1)
    """Texts encoded at once; texts of like length go together."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    prompt: str = ""
    """Written before every text, for models that were trained with one ("passage: ")."""

    @field_validator("model")
    @classmethod
    def _absolute_directory(cls, model: str) -> str:
        # Workers run in other directories.
        return Location.of(model).url if Path(model).expanduser().is_dir() else model


class ImageSettings(Settings):
    """Where the posters are, how they are read, and by which encoder they are embedded."""

    encoder: ImageEncoderName = "palette"
    """palette needs no weights: colours, their layout, and edges. The others are networks trained on ImageNet: those
    of torchvision, and EfficientNet-Lite0, whose weights are a package (extra ``posters``) and need no hub."""
    weights: str = IMAGENET
    """imagenet: the published weights, downloaded once or from their package; else a file with the state dict of the
    network (.pth, .pt, .safetensors). palette has none."""
    directory: str | None = None
    """Posters by item: <directory>/<item_id>.<jpg|jpeg|png|webp|gif|bmp>, with / in an id written %2F. A poster found
    here goes before the one that the catalogue names."""
    root: str | None = None
    """Directory or URL that relative poster paths of the catalogue start from; null: they start at the catalogue."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one attempt to download a poster may take."""
    max_mib: float = Field(default=10.0, gt=0)
    """Larger files are not read."""
    max_megapixels: float = Field(default=40.0, gt=0, le=MOST_MEGAPIXELS)
    """Images of more pixels are not decoded."""
    retries: int = Field(default=2, ge=0)
    """Further attempts after a time-out, a broken connection, or an error of the server (5xx)."""
    threads: int = Field(default=16, ge=1)
    """Posters read at once by one worker."""
    private_hosts: bool = False
    """Download from private, loopback and link-local addresses too. A public address that redirects to a private one
    is refused even so."""
    batch_size: int = Field(default=32, ge=1)
    """Images encoded at once."""

    @field_validator("directory", "root")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return None if path is None else Location.of(path).url

    @field_validator("directory")
    @classmethod
    def _can_be_looked_into(cls, directory: str | None) -> str | None:
        if directory is not None and directory.lower().startswith(("http://", "https://")):
            raise ValueError(f"{directory}: web servers can't be searched by item; set content.image.root instead")
        return directory

    @field_validator("weights")
    @classmethod
    def _absolute_file(cls, weights: str) -> str:
        return weights if weights == IMAGENET else Location.of(weights).url


class FusionSettings(Settings):
    """How the vectors of text and poster become one."""

    strategy: Literal["weighted"] = "weighted"
    """weighted: the sum of both, each of length 1, times its weight."""
    text: float = Field(default=0.7, ge=0)
    """Weight of the text vector."""
    image: float = Field(default=0.3, ge=0)
    """Weight of the poster's vector."""

    @model_validator(mode="after")
    def _weighs_something(self) -> FusionSettings:
        if self.text + self.image == 0:
            raise ValueError("fusion.text and fusion.image are both 0; set one of them above 0")
        return self


class ReportSettings(Settings):
    """How the vectors of items are looked at by ``recsys-ray report embeddings``."""

    titles: int = Field(default=10, ge=0, le=100)
    """How many of the items with most interactions are shown with their neighbours."""
    neighbours: int = Field(default=10, ge=1, le=100)
    """Nearest neighbours of an item that are shown, and that count for genre purity."""
    max_queries: int = Field(default=20_000, ge=1)
    """Purity, similarities and near-duplicates are measured on at most so many items, drawn at random; the neighbours
    of each are searched among all items."""
    near_duplicate: float = Field(default=0.999, gt=0, le=1)
    """Two items with a cosine above this count as near-duplicates."""
    projection: Literal["pca", "tsne"] = "tsne"
    """How vectors become points of the map: pca keeps large distances, tsne keeps neighbours together."""
    projected: int = Field(default=3000, ge=2, le=3000)
    """At most so many items are drawn on the map, chosen at random."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples behind every 95 % interval."""
    seed: int = Field(default=0, ge=0)
    """Decides all that is drawn at random; the same seed gives the same page."""


class ContentSettings(Settings):
    """Vectors of the items from their texts, their posters, or both."""

    text: TextSettings | None = TextSettings()
    """null embeds no texts."""
    image: ImageSettings | None = None
    """null embeds no posters."""
    fusion: FusionSettings = FusionSettings()
    """How both become one vector per item."""
    items_per_shard: int = Field(default=512, ge=1)
    """Items of one unit of work: read, encoded and written together."""
    store: str | None = None
    """Directory or URL of the tables, to share them among configurations; null puts them under output."""
    missing_at_most: float = Field(default=MOST, ge=0, le=1)
    """Share of the items that may have no text, and of the named posters that may not be readable; more is an error.
    From one in ten they are a warning."""
    keep: int = Field(default=1, ge=0)
    """Earlier tables that stay beside the current one; unchanged items take their vectors from them."""
    report: ReportSettings = ReportSettings()
    """What the report about the vectors looks at; no vector depends on it."""

    @model_validator(mode="after")
    def _embeds_something(self) -> ContentSettings:
        if not self.kinds:
            raise ValueError("content.text and content.image are both null; set one of them")
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of vectors that are made."""
        return (*(("text",) if self.text else ()), *(("image",) if self.image else ()))
