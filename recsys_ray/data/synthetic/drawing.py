"""Drawn posters for the made-up world: small pictures whose content is known, for image encoders to find.

The genre decides the background (two colours and a texture, so colour and edges), a second genre fills the lower left
corner, the theme decides the figure, and the item where, how large and how often it stands there. Title and year are
written below. All is drawn at twice the size and averaged down, which smooths the edges.

Genres and themes are numbers; their order is that of ``world.GENRES`` and ``world.THEMES``.

J are the numbers that vary a poster.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from recsys_ray.base.types import FloatArray, IntArray, LongArray

VERSION = 1
WIDTH, HEIGHT = 96, 144
TITLE_TOP = 102
"""The title stands in a band from here to the lower edge."""
SCALE = 2
COLOURS = 48
VARIATIONS, MOST_FIGURES = 16, 4
FONT_SIZES = (13, 12, 11, 10, 9, 7)
YEAR_SIZE = 9
MARGIN = 6
TITLE_LINES = 2
PAPER = (250, 245, 232)

Colour = tuple[int, int, int]
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class GenreStyle:
    """Colours as #rrggbb: the background from top to bottom, the figures, and a texture drawn over the background."""

    top: str
    bottom: str
    ink: str
    texture: str


GENRE_STYLES = (
    GenreStyle("#ff9a2e", "#b3200f", "#2a0a06", "rays"),  # Action
    GenreStyle("#f2e2a0", "#1f8f83", "#0e3138", "waves"),  # Adventure
    GenreStyle("#7fe0ff", "#ff9ad5", "#4320a8", "dots"),  # Animation
    GenreStyle("#f1e6d2", "#c2a27a", "#5a3517", "rings"),  # Biography
    GenreStyle("#fff27a", "#ffbe2e", "#d7263d", "dots"),  # Comedy
    GenreStyle("#59636f", "#13171c", "#e8c93f", "diagonal"),  # Crime
    GenreStyle("#dbe6ea", "#7c97a3", "#173a4d", "bars"),  # Documentary
    GenreStyle("#8a3f63", "#2a1030", "#f4bda6", "plain"),  # Drama
    GenreStyle("#c8f59b", "#33a84a", "#0f4d2a", "dots"),  # Family
    GenreStyle("#bf95ff", "#3b1a8f", "#ffe9a8", "rings"),  # Fantasy
    GenreStyle("#cfc77c", "#5b581d", "#fbf2c8", "bars"),  # History
    GenreStyle("#450c0c", "#050202", "#d81414", "spikes"),  # Horror
    GenreStyle("#ff5fa2", "#5b1fd1", "#1ff0ff", "stripes"),  # Music
    GenreStyle("#ffd6ea", "#e0218a", "#74003f", "rays"),  # Musical
    GenreStyle("#2f6c86", "#0a1d2b", "#a6f0d8", "rings"),  # Mystery
    GenreStyle("#ffd0d0", "#ff5d73", "#98002a", "plain"),  # Romance
    GenreStyle("#0b2a6b", "#00b8c8", "#ecffff", "grid"),  # Science Fiction
    GenreStyle("#f4fbff", "#2fbf5f", "#0b3d91", "diagonal"),  # Sport
    GenreStyle("#0f1a2b", "#73859c", "#ff5a36", "spikes"),  # Thriller
    GenreStyle("#8d925c", "#33371d", "#ded8b5", "diagonal"),  # War
    GenreStyle("#ffbf7d", "#9c4a1b", "#2b1206", "waves"),  # Western
    GenreStyle("#f2f2f2", "#3a3a3a", "#060606", "bars"),  # Noir
    GenreStyle("#d0ff2e", "#00a86b", "#f0006a", "checks"),  # Satire
    GenreStyle("#8fd3ff", "#f7e9b0", "#00628f", "waves"),  # Travel
)


def _ring(radius: float, x: float = 0.0, y: float = 0.0, start: float = 0.0, stop: float = 360.0) -> Polygon:
    """Corners along a circle, angles in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 25))
    return tuple((x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles)


def _star(points: int, inner: float) -> Polygon:
    radii = [1.0 if corner % 2 == 0 else inner for corner in range(2 * points)]
    angles = np.pi * np.arange(2 * points) / points - np.pi / 2
    return tuple((r * float(np.cos(a)), r * float(np.sin(a))) for r, a in zip(radii, angles, strict=True))


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


HEART = ((0.0, 0.95), (-0.98, -0.1), *_ring(0.5, -0.49, -0.35, 160, 340), *_ring(0.5, 0.49, -0.35, 200, 380))

# Figures in a square from -1 to 1, y downwards: polygons drawn in turn, in ink and in the colour of paper.
INK, LIGHT = 0, 1
FIGURES: tuple[tuple[tuple[int, Polygon], ...], ...] = (
    # revenge: a dagger
    ((INK, ((0, 1), (-0.18, 0.7), (-0.18, -0.3), (0.18, -0.3), (0.18, 0.7))), (LIGHT, _box(-0.55, -0.42, 0.55, -0.26)),
     (INK, _box(-0.12, -0.85, 0.12, -0.42)), (LIGHT, _ring(0.15, 0, -0.88))),
    # friendship: two circles that overlap
    ((INK, _ring(0.62, -0.36)), (LIGHT, _ring(0.62, 0.36)), (INK, _ring(0.3, 0.36)), (LIGHT, _ring(0.3, -0.36))),
    # survival: a mountain with snow
    ((INK, ((-1, 0.8), (-0.1, -0.9), (1, 0.8))), (LIGHT, ((-0.42, -0.3), (-0.1, -0.9), (0.29, -0.3), (0, -0.1)))),
    # heist: a cut diamond
    ((INK, ((-0.95, -0.3), (-0.5, -0.8), (0.5, -0.8), (0.95, -0.3), (0, 0.95))),
     (LIGHT, ((-0.4, -0.3), (0.4, -0.3), (0, 0.75)))),
    # coming of age: a rising sun
    ((LIGHT, _star(12, 0.72)), (INK, _ring(0.62)), (INK, _box(-1, 0.45, 1, 0.62))),
    # betrayal: a bolt
    ((INK, ((0.2, -1), (-0.65, 0.15), (-0.08, 0.15), (-0.3, 1), (0.65, -0.25), (0.08, -0.25), (0.5, -1))),),
    # first love: a heart
    ((INK, HEART), (LIGHT, tuple((0.5 * x - 0.02, 0.5 * y - 0.05) for x, y in HEART))),
    # space voyage: a planet with its belt
    ((INK, _ring(0.6)), (LIGHT, tuple((x, 0.25 * y - 0.35 * x) for x, y in _ring(1.0))),
     (INK, tuple((0.8 * x, 0.12 * y - 0.28 * x) for x, y in _ring(1.0))), (INK, _ring(0.6, 0, 0, 180, 340))),
    # lost city: a pyramid in steps
    ((INK, _box(-1, 0.4, 1, 0.85)), (INK, _box(-0.72, -0.05, 0.72, 0.4)), (INK, _box(-0.44, -0.5, 0.44, -0.05)),
     (INK, _box(-0.2, -0.9, 0.2, -0.5)), (LIGHT, ((-0.14, 0.85), (-0.1, -0.45), (0.1, -0.45), (0.14, 0.85)))),
    # courtroom: a portico
    ((INK, ((-1, -0.4), (0, -0.95), (1, -0.4))), (INK, _box(-1, 0.7, 1, 0.9)), (INK, _box(-0.85, -0.32, -0.55, 0.64)),
     (INK, _box(-0.15, -0.32, 0.15, 0.64)), (INK, _box(0.55, -0.32, 0.85, 0.64))),
    # road trip: a road to the horizon
    ((INK, ((-0.95, 0.95), (-0.12, -0.9), (0.12, -0.9), (0.95, 0.95))), (LIGHT, ((-0.1, 0.9), (-0.06, 0.4), (0.06, 0.4),
     (0.1, 0.9))), (LIGHT, ((-0.05, 0.2), (-0.03, -0.2), (0.03, -0.2), (0.05, 0.2)))),
    # haunted house: a house with lit windows
    ((INK, ((-0.75, 0.9), (-0.75, -0.2), (-0.95, -0.2), (0, -1), (0.95, -0.2), (0.75, -0.2), (0.75, 0.9))),
     (LIGHT, _box(-0.45, 0, -0.15, 0.35)), (LIGHT, _box(0.15, 0, 0.45, 0.35)), (LIGHT, _ring(0.14, 0, -0.4))),
    # rivalry: two points that meet
    ((INK, ((-1, -0.75), (0, 0), (-1, 0.75))), (LIGHT, ((1, -0.75), (0, 0), (1, 0.75)))),
    # rebellion: a star
    ((INK, _star(5, 0.4)), (LIGHT, tuple((0.45 * x, 0.45 * y) for x, y in _star(5, 0.4)))),
    # time loop: circles in circles
    ((INK, _ring(0.98)), (LIGHT, _ring(0.78)), (INK, _ring(0.58)), (LIGHT, _ring(0.38)), (INK, _ring(0.18))),
    # small town: a row of roofs
    ((INK, _box(-1, 0, -0.4, 0.8)), (LIGHT, ((-1, 0), (-0.7, -0.45), (-0.4, 0))), (INK, _box(-0.32, -0.35, 0.32, 0.8)),
     (LIGHT, ((-0.32, -0.35), (0, -0.85), (0.32, -0.35))), (INK, _box(0.4, 0.1, 1, 0.8)),
     (LIGHT, ((0.4, 0.1), (0.7, -0.3), (1, 0.1)))),
)  # fmt: skip


def data_uris(
    seed: int,
    titles: Sequence[str],
    year_I: IntArray,
    genre_I: LongArray,
    second_I: LongArray,
    theme_I: LongArray,
) -> pa.Array:
    """(I,) a poster per item as a ``data:image/png;base64,`` address. About a millisecond and 3 kB each.

    Args:
        second_I: the second genre, the first once more where there is none.
    """
    variation_IJ = np.random.default_rng([seed, 3]).random((len(titles), VARIATIONS), np.float32)
    posters = (
        draw_poster(title, year, int(genre), int(second), int(theme), variation_J)
        for title, year, genre, second, theme, variation_J in zip(
            titles, year_I.tolist(), genre_I, second_I, theme_I, variation_IJ, strict=True
        )
    )
    return pa.array([f"data:image/png;base64,{base64.b64encode(poster).decode()}" for poster in posters], pa.string())


def draw_poster(title: str, year: int, genre: int, second: int, theme: int, variation_J: FloatArray) -> bytes:
    """One poster as an indexed PNG of WIDTH x HEIGHT; the (J,) variation holds numbers from 0 to 1."""
    large = _background(genre, second).copy()
    pen = ImageDraw.Draw(large)
    ink = _rgb(GENRE_STYLES[genre].ink)
    light = _mixed(PAPER, ink, 0.15) if _lightness(ink) < 128 else _mixed(ink, _rgb(GENRE_STYLES[genre].bottom), 0.5)
    for x, y, radius, tilt in _places(variation_J):
        for part, polygon in FIGURES[theme]:
            corners_N2 = _placed(polygon, x, y, radius, tilt)
            pen.polygon(corners_N2.ravel().tolist(), fill=light if part == LIGHT else ink)
    poster = large.reduce(SCALE)
    _write_title(poster, title, year, _rgb(GENRE_STYLES[genre].ink), _rgb(GENRE_STYLES[genre].bottom))
    file = io.BytesIO()
    poster.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def _places(variation_J: FloatArray) -> Iterator[tuple[float, float, float, float]]:
    """(x, y, radius, tilt) of the figures: a large one near the middle, up to three small ones around it."""
    first, rest = variation_J[:4].tolist(), variation_J[4:].reshape(-1, 4).tolist()
    count = 1 + int(first[0] * MOST_FIGURES)
    radius = 25 + 13 * first[1] - 3 * (count - 1)
    x, y = WIDTH / 2 + 16 * (first[2] - 0.5), TITLE_TOP / 2 + 14 * (first[3] - 0.5)
    for number, (along, out, size, tilt) in enumerate(rest[: count - 1]):
        angle = 2 * np.pi * (number + 0.8 * along) / (count - 1)
        distance = 0.9 * radius + 12 + 8 * out
        yield x + distance * float(np.cos(angle)), y + distance * float(np.sin(angle)), 8 + 6 * size, tilt - 0.5
    yield x, y, radius, 0.3 * (first[1] + first[3] - 1)


def _placed(polygon: Polygon, x: float, y: float, radius: float, tilt: float) -> FloatArray:
    """(N, 2) corners on the large canvas; x, y and radius in points of the finished poster, tilt in radians."""
    sine, cosine = np.sin(tilt), np.cos(tilt)
    turned = np.array(polygon) @ np.array([[cosine, sine], [-sine, cosine]])
    return cast(FloatArray, (SCALE * (turned * radius + (x, y))).astype(np.float32))


@lru_cache(maxsize=128)
def _background(genre: int, second: int) -> Image.Image:
    """The large canvas of these genres, without figures. Not to be written to."""
    canvas = _textured(genre)
    if second != genre:
        width, height = canvas.size
        corner = Image.new("1", canvas.size)
        ImageDraw.Draw(corner).polygon([(0, height * 0.2), (width * 0.8, height), (0, height)], fill=1)
        canvas = canvas.copy()
        canvas.paste(_textured(second), mask=corner)
    return canvas


@lru_cache(maxsize=len(GENRE_STYLES))
def _textured(genre: int) -> Image.Image:
    style = GENRE_STYLES[genre]
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    falling = Image.linear_gradient("L").resize((size[0], TITLE_TOP * SCALE))
    shades = Image.new("L", size, 255)
    shades.paste(falling.point(lambda value: value // 16 * 17))  # few shades make small files
    canvas = Image.composite(Image.new("RGB", size, style.bottom), Image.new("RGB", size, style.top), shades)
    texture = Image.new("L", size)
    pen = ImageDraw.Draw(texture)
    for polygon in TEXTURES[style.texture](*size):
        pen.polygon(polygon, fill=44)
    ink = _rgb(style.ink)
    canvas.paste(Image.new("RGB", size, ink if _lightness(ink) < 128 else PAPER), mask=texture)
    return canvas


def _rays(width: float, height: float) -> list[Polygon]:
    x, y = width / 2, height * 0.4
    return [((x, y), *_ring(width + height, x, y, start, start + 15)) for start in range(0, 360, 30)]


def _waves(width: float, height: float) -> list[Polygon]:
    x = np.linspace(0, width, 33)
    found = []
    for y in np.arange(20, height, 40):
        upper = [(float(a), float(y + 7 * np.sin(a / 12))) for a in x]
        found.append((*upper, *((a, b + 12) for a, b in reversed(upper))))
    return found


def _dots(width: float, height: float) -> list[Polygon]:
    return [_ring(7, x + 16 * (y // 32 % 2), y) for y in range(12, int(height), 32) for x in range(8, int(width), 32)]


def _rings(width: float, height: float) -> list[Polygon]:
    x, y = width / 2, height * 0.36
    return [(*_ring(radius, x, y), *reversed(_ring(radius - 12, x, y))) for radius in range(30, int(height), 36)]


def _bars(width: float, height: float) -> list[Polygon]:
    return [_box(0, y, width, y + 10) for y in range(8, int(height), 24)]


def _stripes(width: float, height: float) -> list[Polygon]:
    return [_box(x, 0, x + 10, height) for x in range(8, int(width), 24)]


def _diagonal(width: float, height: float) -> list[Polygon]:
    starts = range(-int(height), int(width), 36)
    return [((x, height), (x + height, 0), (x + height + 14, 0), (x + 14, height)) for x in starts]


def _spikes(width: float, height: float) -> list[Polygon]:
    return [
        ((x, y), (x + 12, y + 30), (x + 24, y)) for y in range(0, int(height), 52) for x in range(0, int(width), 24)
    ]


def _grid(width: float, height: float) -> list[Polygon]:
    across = [_box(0, y, width, y + 4) for y in range(14, int(height), 28)]
    return across + [_box(x, 0, x + 4, height) for x in range(12, int(width), 28)]


def _checks(width: float, height: float) -> list[Polygon]:
    side = 24
    corners = [(x, y) for y in range(0, int(height), side) for x in range(y % (2 * side), int(width), 2 * side)]
    return [_box(x, y, x + side, y + side) for x, y in corners]


TEXTURES: dict[str, Callable[[float, float], list[Polygon]]] = {
    "plain": lambda width, height: [], "rays": _rays, "waves": _waves, "dots": _dots, "rings": _rings, "bars": _bars,
    "stripes": _stripes, "diagonal": _diagonal, "spikes": _spikes, "grid": _grid, "checks": _checks,
}  # fmt: skip


def _write_title(poster: Image.Image, title: str, year: int, ink: Colour, ground: Colour) -> None:
    """A dark band with the title in at most two lines as large as they fit, and the year in its lower right corner."""
    dark = min(ink, _mixed(ground, (0, 0, 0), 0.6), key=_lightness)
    pen = ImageDraw.Draw(poster)
    pen.rectangle((0, TITLE_TOP, WIDTH, HEIGHT), fill=dark)
    pen.rectangle((0, TITLE_TOP, WIDTH, TITLE_TOP + 1), fill=max(ink, ground, key=_lightness))
    lines, size = _fitted(title)
    for number, line in enumerate(lines):
        pen.text((MARGIN, TITLE_TOP + 3 + number * size), line, font=_font(size), fill=PAPER)
    place = (WIDTH - MARGIN, HEIGHT - 2)
    pen.text(place, str(year), font=_font(YEAR_SIZE), fill=_mixed(PAPER, dark, 0.3), anchor="rs")


def _fitted(title: str) -> tuple[list[str], int]:
    """The title in lines, at the largest size at which it fits; at the smallest, what does not fit is left out."""
    lines: list[str] = []
    for size in FONT_SIZES:
        lines = []
        for word in title.split():
            joined = f"{lines[-1]} {word}" if lines else word
            if lines and _length(joined, size) <= WIDTH - 2 * MARGIN:
                lines[-1] = joined
            else:
                lines.append(word)
        if len(lines) <= TITLE_LINES and all(_length(line, size) <= WIDTH - 2 * MARGIN for line in lines):
            break
    return lines[:TITLE_LINES], size


@lru_cache(maxsize=10_000)
def _length(text: str, size: int) -> float:
    return _font(size).getlength(text)


@lru_cache(maxsize=len(FONT_SIZES) + 1)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _rgb(text: str) -> Colour:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    """``share`` of the other colour in the one."""
    red, green, blue = (round((1 - share) * a + share * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _lightness(colour: Colour) -> float:
    """From 0 (black) to 255, as bright as the eye takes it (ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
