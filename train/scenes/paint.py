"""Paints the scene renderer's textures of sky and ground, and the noise and light that all textures share.

Every painter takes a random generator and returns arrays; knows nothing of the camera.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .canvas import f32, i32
from .plan import KERB_M, Label, Light, Street

SKY_PX = 560.0
"""Texels of the sky's panorama to a bearing or elevation whose tangent is 1."""
TILE_M = 48.0
TILE_HALF_M = 16.0
TILE_PX_M = (24, 48)
"""Texels a metre of the ground, along the street and across it."""
OUTER_M = 3.0


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
    scale: Any = (*gain.tolist(), 0.0)  # OpenCV's type stubs lack scalars
    floor: Any = 0.0
    return cv2.convertScaleAbs(cv2.max(cv2.multiply(image, scale), floor))


def sky_panorama(rng: np.random.Generator, light: Light) -> np.ndarray:
    """(512, 1536, 3) uint8 sky; rows are the tangent of the elevation 0.9..0, columns the bearing, tiling."""
    height, width = 512, 1536
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
    """Add a bright haze around the sun where it stands ahead."""
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


def readable(image: np.ndarray, mirrored: bool) -> np.ndarray:
    """The image, mirrored where the finished frame will be mirrored too, so that letters can be read."""
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image
