"""Paints the scene renderer's walls: fronts with windows, doors and shops, plain ends, roofs.

Every painter takes a random generator and returns textures; knows nothing of the camera.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .canvas import Colour, Texture, f32
from .paint import lit_bytes, noise, readable
from .plan import Light

WALL_PX_M = 36
"""Texels a metre of a house front."""
SHOPS = (
    "BAKERY", "BOOKS", "CAFE", "FLORIST", "TEA ROOM", "CYCLES", "OPTICIAN", "DELI", "BARBER", "TOYS", "MUSIC",
    "PHARMACY", "BUTCHER", "GALLERY", "ANTIQUES", "GREENGROCER", "TAILOR", "PIZZERIA",
)  # fmt: skip
BRICKS: tuple[Colour, ...] = (
    (74, 96, 148),
    (92, 118, 164),
    (84, 104, 128),
    (128, 166, 188),
    (66, 78, 116),
    (110, 138, 160),
)
RENDERS: tuple[Colour, ...] = (
    (206, 222, 228), (186, 206, 216), (176, 200, 226), (200, 196, 178), (214, 214, 206), (168, 190, 206),
    (190, 188, 214), (168, 204, 188), (158, 190, 222),
)  # fmt: skip
FRONTS: tuple[Colour, ...] = (
    (44, 60, 28), (84, 50, 28), (36, 36, 118), (48, 48, 48), (96, 84, 38), (60, 34, 72), (40, 92, 138), (108, 118, 112),
    (70, 90, 40), (34, 44, 84),
)  # fmt: skip


@lru_cache(maxsize=1)
def _mottles() -> np.ndarray:
    return noise(np.random.default_rng(0), 64, 64, 4)


def _mottle(rng: np.random.Generator) -> np.ndarray:
    """(64, 64) float32 blotches, shifted at random, which is cheaper than new ones for every wall."""
    return np.roll(_mottles(), tuple(rng.integers(0, 64, 2)), axis=(0, 1))


def wall_surface(rng: np.random.Generator, height: int, width: int, colour: Colour, *, bricks: bool) -> np.ndarray:
    """(height, width, 3) float32 brick or render, with stains that run down."""
    value = 1 + 0.05 * cv2.resize(_mottle(rng), (width, height))
    streaks = cv2.resize(rng.standard_normal((3, max(2, width // 6))).astype(np.float32), (width, height))
    value += 0.025 * streaks
    if bricks:
        course = max(3, round(0.09 * WALL_PX_M))
        blocks = rng.normal(0, 0.07, (height // course + 1, width // (course * 3) + 2)).astype(np.float32)
        value += np.repeat(np.repeat(blocks, course, 0), course * 3, 1)[:height, :width]
        value[::course] += 0.10
    foot = np.linspace(height / WALL_PX_M, 0, height, dtype=np.float32)[:, None]
    value *= 1 - 0.30 * np.exp(-foot / 0.5)
    return value[..., None] * f32(colour)


def _box(image: np.ndarray, x: float, y: float, w: float, h: float, colour: Colour) -> None:
    """Fill a rectangle given in metres from the top left."""
    p = WALL_PX_M
    cv2.rectangle(image, (round(x * p), round(y * p)), (round((x + w) * p) - 1, round((y + h) * p) - 1), colour, -1)


def _shade(image: np.ndarray, x: float, y: float, w: float, h: float, gain: float) -> None:
    p = WALL_PX_M
    image[max(0, round(y * p)) : max(0, round((y + h) * p)), max(0, round(x * p)) : max(0, round((x + w) * p))] *= gain


def _glass(image: np.ndarray, rng: np.random.Generator, x: float, y: float, w: float, h: float, sky: Colour) -> None:
    """A pane that mirrors the sky above and the dark street below, with a curtain now and then."""
    p = WALL_PX_M
    x0, y0, x1, y1 = round(x * p), round(y * p), round((x + w) * p), round((y + h) * p)
    pane = image[max(y0, 0) : y1, max(x0, 0) : x1]
    if not pane.size:
        return
    fall = np.linspace(0, 1, pane.shape[0], dtype=np.float32)[:, None, None]
    top = f32(sky) * rng.uniform(0.32, 0.62)
    pane[:] = top + (f32([50, 46, 42]) - top) * fall**0.7
    slant = (np.add.outer(np.arange(pane.shape[0]), np.arange(pane.shape[1])) % 67) < 9
    pane[slant] *= 1.16
    if rng.random() < 0.45:
        edge = max(1, int(pane.shape[1] * rng.uniform(0.14, 0.26)))
        cloth = f32([196, 206, 210]) * rng.uniform(0.55, 0.85)
        pane[:, :edge] = pane[:, -edge:] = cloth
    pane[: max(1, pane.shape[0] // 9)] *= 0.55


def _window(
    image: np.ndarray, rng: np.random.Generator, x: float, y: float, w: float, h: float, trim: Colour, sky: Colour
) -> None:
    """A sash window with its lintel, sill, reveal and bars."""
    stone = tuple(c * 0.93 for c in trim)
    _box(image, x - 0.12, y - 0.22, w + 0.24, 0.22, stone)
    _shade(image, x - 0.12, y + h + 0.12, w + 0.3, 0.22, 0.80)
    _box(image, x - 0.04, y, w + 0.08, h, (52, 54, 56))
    _box(image, x + 0.03, y + 0.05, w - 0.06, h - 0.05, trim)
    _glass(image, rng, x + 0.10, y + 0.12, w - 0.2, h - 0.2, sky)
    _box(image, x + 0.06, y + h * 0.5, w - 0.12, 0.07, trim)
    if w > 0.9:
        _box(image, x + w / 2 - 0.025, y + 0.1, 0.05, h - 0.16, trim)
    _box(image, x - 0.10, y + h, w + 0.2, 0.11, tuple(c * 1.04 for c in stone))


def _shopfront(image: np.ndarray, rng: np.random.Generator, width: float, top: float, sky: Colour) -> None:
    """Fascia with a name, stall riser, big panes with goods behind them, a door."""
    paint = FRONTS[int(rng.integers(len(FRONTS)))]
    storey = 3.3
    _box(image, 0.12, top, width - 0.24, storey, paint)
    _shade(image, 0.0, top - 0.02, width, 0.07, 1.5)
    _box(image, 0.2, top + 0.08, width - 0.4, 0.6, tuple(min(255.0, c * 1.22 + 6) for c in paint))
    text = SHOPS[int(rng.integers(len(SHOPS)))]
    scale = 0.020 * WALL_PX_M * 0.9
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_TRIPLEX, scale, 1)
    scale *= min(1.0, (width - 1.0) * WALL_PX_M / tw)
    (tw, th), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_TRIPLEX, scale, 1)
    at = (int(width * WALL_PX_M / 2 - tw / 2), int((top + 0.38) * WALL_PX_M + th / 2))
    ink = (190, 226, 236) if sum(paint) < 330 else (44, 44, 44)
    letters = np.zeros(image.shape[:2], np.uint8)
    cv2.putText(letters, text, at, cv2.FONT_HERSHEY_TRIPLEX, scale, 255, 1, cv2.LINE_AA)
    image += (f32(ink) - image) * (letters.astype(np.float32) / 255)[..., None]
    _shade(image, 0.12, top + 0.72, width - 0.24, 0.16, 0.5)
    door = float(rng.choice([0.3, width / 2 - 0.5, width - 1.3]))
    x = 0.3
    while x < width - 0.7:
        pane = min(rng.uniform(1.2, 2.2), width - 0.3 - x)
        if door - pane < x < door + 1.0:
            pane = door - x - 0.1
            if pane < 0.5:
                x = door + 1.1
                continue
        _display(image, rng, x, top + 0.92, pane, storey - 1.5, sky)
        x += pane + 0.12
    _box(image, door, top + 0.9, 1.0, storey - 0.9, tuple(c * 0.8 for c in paint))
    _glass(image, rng, door + 0.16, top + 1.05, 0.68, storey - 1.75, sky)
    _shade(image, 0.12, top + storey - 0.5, width - 0.24, 0.05, 0.6)


def _display(image: np.ndarray, rng: np.random.Generator, x: float, y: float, w: float, h: float, sky: Colour) -> None:
    _box(image, x, y, w, h, (38, 40, 42))
    lit = rng.random() < 0.45
    back = (90, 150, 190) if lit else (62, 70, 72)
    _box(image, x + 0.05, y + 0.05, w - 0.1, h - 0.1, back)
    for _ in range(int(w * 5)):
        gw, gh = rng.uniform(0.12, 0.4), rng.uniform(0.15, 0.7)
        gx = rng.uniform(x + 0.08, max(x + 0.09, x + w - gw - 0.08))
        tone = rng.uniform(60, 230, 3) * (1.0 if lit else 0.7)
        _box(image, gx, y + h - 0.06 - gh, min(gw, x + w - gx - 0.05), gh, tuple(float(v) for v in tone))
    p = WALL_PX_M
    pane = image[round(y * p) : round((y + h) * p), round(x * p) : round((x + w) * p)]
    fall = np.linspace(0.55, 0.05, max(1, pane.shape[0]), dtype=np.float32)[:, None, None]
    pane += (f32(sky) * 0.62 - pane) * fall


def house_front(
    rng: np.random.Generator, light: Light, *, width: float, storeys: int, shop: bool, side: int, mirrored: bool
) -> tuple[Texture, Colour, bool]:
    """A house's front as seen from the street, lit; also its wall colour and whether it is of brick."""
    bricks = bool(rng.random() < 0.55)
    paints = BRICKS if bricks else RENDERS
    colour = tuple(
        float(c * t) for c, t in zip(paints[int(rng.integers(len(paints)))], rng.uniform(0.92, 1.06, 3), strict=True)
    )
    trim: Colour = (214, 222, 226) if rng.random() < 0.8 else (70, 76, 80)
    height = storeys * 3.0 + 0.9
    image = wall_surface(rng, round(height * WALL_PX_M), round(width * WALL_PX_M), colour, bricks=bricks)
    sky = light.horizon
    first = 1 if shop else 0
    bays = max(1, int(width / rng.uniform(2.0, 2.9)))
    w, h = float(rng.uniform(0.95, 1.35)), float(rng.uniform(1.45, 1.85))
    for storey in range(first, storeys):
        top = height - (storey + 1) * 3.0 + 0.55 - (0.3 if shop else 0.0)
        for bay in range(bays):
            x = width * (bay + 0.5) / bays - w / 2
            if storey == 0 and bay == bays // 2:
                _front_door(image, rng, x, height, trim)
            else:
                _window(image, rng, x, top, w, h, trim, sky)
        if storey and rng.random() < 0.5:
            _box(image, 0, top + h + 0.75, width, 0.12, tuple(c * 0.95 for c in trim))
    if shop:
        _shopfront(image, rng, width, height - 3.3, sky)
    _cornice(image, rng, width, trim)
    pipe = float(rng.choice([0.1, width - 0.2]))
    _box(image, pipe, 0.4, 0.09, height - (3.6 if shop else 0.4), (62, 62, 60))
    _shade(image, pipe + 0.09, 0.4, 0.07, height - 3.6, 0.8)
    gain = light.gain((0, -side, 0))
    lit = lit_bytes(image, gain)
    return Texture(readable(lit, mirrored)), colour, bricks


def _front_door(image: np.ndarray, rng: np.random.Generator, x: float, height: float, trim: Colour) -> None:
    paint = FRONTS[int(rng.integers(len(FRONTS)))]
    _box(image, x - 0.12, height - 2.5, 1.24, 2.5, trim)
    _box(image, x, height - 2.35, 1.0, 2.35, tuple(min(255.0, c * 1.3) for c in paint))
    _box(image, x + 0.2, height - 2.2, 0.6, 0.5, (96, 100, 100))
    _shade(image, x, height - 2.35, 1.0, 0.12, 0.6)


def _cornice(image: np.ndarray, rng: np.random.Generator, width: float, trim: Colour) -> None:
    deep = float(rng.uniform(0.18, 0.4))
    _box(image, 0, 0, width, deep, tuple(c * 0.97 for c in trim))
    for k in range(4):
        _shade(image, 0, deep + 0.12 * k, width, 0.12, 0.66 + 0.085 * k)


def plain_wall(
    rng: np.random.Generator, light: Light, colour: Colour, *, bricks: bool, width: float, height: float
) -> Texture:
    """An end wall, which faces the camera."""
    image = wall_surface(rng, round(height * WALL_PX_M / 2), round(width * WALL_PX_M / 2), colour, bricks=bricks)
    return Texture(lit_bytes(image, light.gain((-1, 0, 0))))


def roof_tiles(rng: np.random.Generator, light: Light, *, side: int) -> Texture:
    """A slope of slates or tiles that leans back from the street."""
    slate, clay = (92, 84, 80), (66, 84, 128)
    colour = f32(slate if rng.random() < 0.6 else clay) * rng.uniform(0.85, 1.1)
    value = 1 + 0.08 * cv2.resize(_mottle(rng), (256, 160))
    blocks = rng.normal(0, 0.06, (20, 33)).astype(np.float32)
    value += np.repeat(np.repeat(blocks, 8, 0), 8, 1)[:160, :256]
    value[::8] *= 0.82
    image = value[..., None] * colour * light.gain((0, -side * 0.7, 0.7)).astype(np.float32)
    return Texture(np.clip(image, 0, 255).astype(np.uint8))
