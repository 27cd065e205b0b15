"""Paints the scene renderer's textures: sky, ground, house fronts, leaves, railings, signs.

Every painter takes a random generator and gives arrays; knows nothing of the camera.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from .canvas import Colour, Texture, f32, i32
from .plan import KERB_M, Label, Light, Street

SKY_PX = 560.0
"""Texels of the sky's panorama to a bearing or elevation whose tangent is 1."""
WALL_PX_M = 36
"""Texels a metre of a house front."""
TILE_M = 48.0
TILE_HALF_M = 16.0
TILE_PX_M = (24, 48)
"""Texels a metre of the ground, along the street and across it."""
OUTER_M = 3.0
SHOPS = (
    "BAKERY", "BOOKS", "CAFE", "FLORIST", "TEA ROOM", "CYCLES", "OPTICIAN", "DELI", "BARBER", "TOYS", "MUSIC",
    "PHARMACY", "BUTCHER", "GALLERY", "ANTIQUES", "GREENGROCER", "TAILOR", "PIZZERIA",
)  # fmt: skip


def noise(rng: np.random.Generator, height: int, width: int, cells: int, *, octaves: int = 4) -> np.ndarray:
    """(height, width) float32 cloud-like noise about 0, roughly -1..1, that tiles both ways."""
    out = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        n = cells << octave
        rows, cols = max(2, round(n * min(1, height / width))), max(2, round(n * min(1, width / height)))
        grid = np.pad(rng.standard_normal((rows, cols), np.float32), 2, mode="wrap")
        scale = (height / rows, width / cols)
        big = cv2.resize(grid, None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_CUBIC)
        top, left = round(2 * scale[0]), round(2 * scale[1])
        part = big[top : top + height, left : left + width]
        out[: part.shape[0], : part.shape[1]] += part * 0.5**octave
    return out * 0.6


def lit_bytes(image: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32 paint times a (3,) gain, as uint8."""
    scale: Any = (*gain.tolist(), 0.0)  # OpenCV's stubs know no scalars
    floor: Any = 0.0
    return cv2.convertScaleAbs(cv2.max(cv2.multiply(image, scale), floor))


def sky_panorama(rng: np.random.Generator, light: Light, height: int = 512, width: int = 1536) -> np.ndarray:
    """(height, width, 3) uint8 sky; rows are the tangent of the elevation 0.9..0, columns the bearing, tiling."""
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    fade = up**0.6
    base = f32(light.horizon) * (1 - fade[..., None]) + f32(light.zenith) * fade[..., None]
    # a flat cloud deck seen from below: the farther, the flatter
    deck = noise(rng, 1024, 1024, 5, octaves=6)
    rows = 260.0 / (up + 0.16)
    columns = np.arange(0, width, dtype=np.float32)[None, :]
    map_x = np.broadcast_to(columns, (height, width)).astype(np.float32)
    map_y = np.broadcast_to(rows, (height, width)).astype(np.float32)
    cloud = cv2.remap(deck, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    cover = (
        np.clip((cloud - 0.55 + 1.25 * light.cover) * 1.6, 0, 1)[..., None] * np.clip(up * 5 + 0.25, 0, 1)[..., None]
    )
    lower = np.roll(cloud, -10, axis=0)
    shade = np.clip(0.5 + (cloud - lower) * 0.9, 0, 1)[..., None]
    dark = f32(light.cloud) * 0.80 + f32(light.zenith) * 0.06
    tint = dark + (f32(light.cloud) - dark) * shade
    sky = base + (tint - base) * cover * 0.92
    return np.clip(_sun_glow(sky, light), 0, 255).astype(np.uint8)


def _sun_glow(sky: np.ndarray, light: Light) -> np.ndarray:
    """A bright haze about the sun where it stands ahead."""
    ahead, right, up = light.sun
    if ahead < 0.15 or light.shadow < 0.2:
        return sky
    height, width = sky.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] - (width / 2 + right / ahead * SKY_PX)
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1 - up / ahead * SKY_PX)
    far = np.sqrt(x * x + y * y)
    glow = 0.75 * np.exp(-far / 60) + 0.45 * np.exp(-far / 260)
    return sky + (f32([214, 240, 255]) - sky) * np.clip(glow, 0, 1)[..., None]


def ground_profile(street: Street) -> list[tuple[float, float, str]]:
    """Bands of the street's cross-section: from u, to u, material."""
    bands = [(-street.kerb(-1), street.kerb(1), "asphalt")]
    for side in (-1, 1):
        kerb, front = street.kerb(side), street.front(side)
        walk = front - street.pavement_m
        parts = []
        if street.pavement_m:
            parts += [(walk, front, "paving"), (kerb, kerb + KERB_M, "kerb")]
            kerb += KERB_M
        if street.verge_m:
            parts.append((kerb, walk, "grass"))
        parts.append((front, 1e3, "paving" if street.paved_front else "grass"))
        bands += [(min(side * a, side * b), max(side * a, side * b), kind) for a, b, kind in parts]
    if street.median_m:
        bands.append((-street.median_m / 2, street.median_m / 2, "grass"))
    return bands


GROUND_LABEL = {"asphalt": Label.ROAD, "kerb": Label.PAVEMENT, "paving": Label.PAVEMENT, "grass": Label.TREE}


def ground_tile(rng: np.random.Generator, street: Street, light: Light, autumn: float) -> np.ndarray:
    """The ground from above, lit: (s, u, 3) uint8 at TILE_PX_M, tiling along the street."""
    rows, cols = int(TILE_M * TILE_PX_M[0]), int(2 * TILE_HALF_M * TILE_PX_M[1])
    u = (np.arange(cols) + 0.5) / TILE_PX_M[1] - TILE_HALF_M
    tile = np.empty((rows, cols, 3), np.float32)
    grain = cv2.resize(noise(rng, 512, 512, 128, octaves=2), (cols, rows), interpolation=cv2.INTER_LINEAR)
    broad = cv2.resize(noise(rng, rows // 4, cols // 4, 6, octaves=4), (cols, rows))
    fine = cv2.GaussianBlur(rng.standard_normal((rows, cols), np.float32), (3, 3), 0.7)
    painters = {"asphalt": _asphalt, "kerb": _kerb, "paving": _paving, "grass": _grass}
    for low, high, kind in ground_profile(street):
        cut = slice(int(np.searchsorted(u, low)), int(np.searchsorted(u, high)))
        if cut.stop > cut.start:
            painters[kind](rng, tile[:, cut], broad[:, cut], fine[:, cut], grain[:, cut], autumn)
    _mark_lanes(tile, street, fine)
    _gutters(tile, street)
    return lit_bytes(tile, light.gain((0, 0, 1)))


def _asphalt(
    rng: np.random.Generator, out: np.ndarray, broad: np.ndarray, fine: np.ndarray, grain: np.ndarray, autumn: float
) -> None:
    rows, cols = out.shape[:2]
    level = rng.uniform(92, 128)
    patch = np.zeros((rows, cols), np.float32)
    for _ in range(5):  # trenches dug and filled again
        y, x = int(rng.uniform(0, rows * 0.9)), int(rng.uniform(0, cols * 0.9))
        h, w = int(rng.uniform(40, 420)), int(rng.uniform(20, 90))
        cv2.rectangle(patch, (x, y), (x + w, y + h), float(rng.uniform(-13, 5)), -1)
        cv2.rectangle(patch, (x, y), (x + w, y + h), -22.0, 1)
    for _ in range(9):  # cracks, wandering along the street
        steps = np.cumsum(np.stack([rng.normal(0, 3, 40), rng.uniform(2, 12, 40)], axis=1), axis=0)
        start = (rng.uniform(0, cols), rng.uniform(0, rows * 0.8))
        cv2.polylines(patch, [i32(steps + start)], False, -20.0, 1, cv2.LINE_AA)
    # tyres polish two tracks a lane
    tracks = 4.0 * np.cos(np.linspace(0, 4 * np.pi * max(1, cols // 330), cols, dtype=np.float32))[None]
    value = level + broad * 6 + fine * 9 + grain * 2 + patch + tracks
    out[:] = value[..., None] * f32([1.02, 1.0, 0.985])


def _kerb(
    rng: np.random.Generator, out: np.ndarray, broad: np.ndarray, fine: np.ndarray, grain: np.ndarray, _: float
) -> None:
    stone = np.repeat(rng.normal(0, 7, int(TILE_M / 0.96) + 3), int(0.96 * TILE_PX_M[0]))[: out.shape[0]]
    value = 182 + stone[:, None] + fine * 5 + broad * 3
    value[:: int(0.96 * TILE_PX_M[0])] -= 42
    out[:] = value[..., None] * f32([0.97, 1.0, 1.0])


def _paving(
    rng: np.random.Generator, out: np.ndarray, broad: np.ndarray, fine: np.ndarray, grain: np.ndarray, _: float
) -> None:
    rows, cols = out.shape[:2]
    step_s, step_u = int(0.75 * TILE_PX_M[0]), int(0.6 * TILE_PX_M[1])
    slabs = rng.normal(0, 5.5, (rows // step_s + 2, cols // step_u + 2)).astype(np.float32)
    cells = np.kron(slabs, np.ones((step_s, step_u), np.float32))[:rows, :cols]
    value = 146 + cells + broad * 7 + fine * 4 + grain * 3
    value[::step_s] -= 30
    value[:, step_u - 1 :: step_u] -= 30
    out[:] = value[..., None] * f32([0.93, 0.985, 1.0])


def _grass(
    rng: np.random.Generator, out: np.ndarray, broad: np.ndarray, fine: np.ndarray, grain: np.ndarray, autumn: float
) -> None:
    green, straw = f32([52, 116, 92]), f32([88, 132, 138])
    mix = np.clip(0.18 + 0.4 * autumn + broad * 0.35 + grain * 0.1, 0, 1)[..., None]
    out[:] = (green + (straw - green) * mix) * (1 + 0.14 * fine + 0.14 * grain)[..., None]


def _mark_lanes(tile: np.ndarray, street: Street, fine: np.ndarray) -> None:
    """Dashes at the middle and between lanes, yellow lines or white edges; worn where the grain is coarse."""
    s = np.arange(tile.shape[0]) / TILE_PX_M[0]
    white, yellow = f32([212, 218, 218]), f32([70, 176, 208])

    def line(centre: float, width: float, colour: np.ndarray, period: float = 0.0, mark: float = 0.0) -> None:
        low, high = (int((centre + TILE_HALF_M + d * width / 2) * TILE_PX_M[1]) for d in (-1, 1))
        on = np.ones(len(s), bool) if not period else (s % period) < mark
        worn = np.clip(0.86 - 0.16 * np.maximum(fine[:, low:high], 0), 0, 1) * on[:, None]
        tile[:, low:high] += (colour - tile[:, low:high]) * worn[..., None]

    half = street.median_m / 2
    for lane in range(1, street.lanes):
        for side in (-1, 1):
            line(side * (half + lane * street.lane_m), 0.15, white, 8.0, 2.6)
    if not half:
        line(0.0, 0.12, white, 6.0, 2.4)
    for side in (-1, 1):
        kerb, edge = street.kerb(side), half + street.lanes * street.lane_m
        if half:
            line(side * (half + 0.3), 0.16, white)
            line(side * edge, 0.18, white)
        elif street.parking_m[side > 0]:
            line(side * edge, 0.1, white, 6.0, 4.6)
        elif street.yellow_lines:
            line(side * (kerb - 0.30), 0.09, yellow)
            line(side * (kerb - 0.50), 0.09, yellow)
        elif not street.pavement_m:
            line(side * (kerb - 0.2), 0.12, white, 4.0, 3.0)


def _gutters(tile: np.ndarray, street: Street) -> None:
    """Dirt gathers along the kerbs and the walls."""
    u = (np.arange(tile.shape[1]) + 0.5) / TILE_PX_M[1] - TILE_HALF_M
    gain = np.ones_like(u)
    for side in (-1, 1):
        inside = street.kerb(side) - side * u
        gain *= 1 - 0.42 * np.exp(-np.clip(inside, 0, None) / 0.14) * (inside > 0)
        gain *= 1 - 0.35 * ((inside <= 0) & (inside > -0.05))  # the kerb's own face is in shade
        if street.paved_front:
            gain *= 1 - 0.34 * np.exp(-np.abs(street.wall(side) - side * u) / 0.35)
    tile *= gain[None, :, None].astype(np.float32)


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
    """(64, 64) float32 blotches, shifted at random: cheaper than new ones for every wall."""
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
    rng: np.random.Generator, light: Light, *, width: float, storeys: int, shop: bool, side: int, mirrored: bool = False
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


def readable(image: np.ndarray, mirrored: bool) -> np.ndarray:
    """Turned about, where the finished frame will be turned about too, so that letters can be read."""
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


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
