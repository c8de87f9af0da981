"""Encoders of texts and posters, and what joins their vectors. Rows of the catalogue in, vectors out."""

from recsys_ray.encoders.fusion import fuse, pool
from recsys_ray.encoders.hashing import content_hash, image_hashes, text_hashes
from recsys_ray.encoders.image import ImageEncoder, image_fingerprint, open_image_encoder, prepare_image
from recsys_ray.encoders.posters import Poster, poster_stamps, read_posters
from recsys_ray.encoders.problems import PosterError
from recsys_ray.encoders.settings import EmbeddingSettings, FusionSettings, ImageSettings, TextSettings
from recsys_ray.encoders.text import TextEncoder, compose, open_text_encoder, text_fingerprint

__all__ = [
    "EmbeddingSettings",
    "FusionSettings",
    "ImageEncoder",
    "ImageSettings",
    "Poster",
    "PosterError",
    "TextEncoder",
    "TextSettings",
    "compose",
    "content_hash",
    "fuse",
    "image_fingerprint",
    "image_hashes",
    "open_image_encoder",
    "open_text_encoder",
    "pool",
    "poster_stamps",
    "prepare_image",
    "read_posters",
    "text_fingerprint",
    "text_hashes",
]
