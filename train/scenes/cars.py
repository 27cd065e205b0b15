"""Cars, vans, lorries and buses of the scene renderer: how they are drawn at random, lit once and painted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .bodies import BODIES, car_mesh
from .canvas import NEAR_M, Canvas, Colour, clip_near, f32
from .plan import Label, Light

KINDS = tuple(BODIES)
KIND_SHARE = (0.32, 0.22, 0.16, 0.13, 0.10, 0.03, 0.04)
PAINTS: tuple[Colour, ...] = (
    (184, 188, 188), (150, 154, 156), (222, 224, 224), (46, 46, 48), (60, 58, 60), (132, 70, 34), (92, 46, 28),
    (40, 36, 160), (30, 34, 120), (76, 92, 54), (150, 130, 92), (170, 176, 160), (60, 150, 200), (120, 90, 60),
)  # fmt: skip
WHEEL_M = {"hatch": 0.31, "saloon": 0.32, "estate": 0.32, "suv": 0.38, "van": 0.35, "lorry": 0.48, "bus": 0.50}
GLASS: Colour = (50, 45, 40)


@dataclass(frozen=True)
class Car:
    """One vehicle's kind and looks; its place is a function of time."""

    kind: str
    paint: Colour
    trim: float
    """Darkness of the bumpers, 0 body coloured, 1 black."""

    @property
    def length_m(self) -> float:
        """From bumper to bumper."""
        return BODIES[self.kind][-1][0] - BODIES[self.kind][0][0]

    @property
    def half_width_m(self) -> float:
        """From the middle to the flank at its widest."""
        return max(row[4] for row in BODIES[self.kind])


def draw_car(rng: np.random.Generator) -> Car:
    """A random vehicle, most often a hatchback."""
    kind = str(rng.choice(KINDS, p=KIND_SHARE))
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    if kind == "bus":
        paint = [(40, 34, 170), (150, 120, 40), (190, 214, 222)][int(rng.integers(3))]
    if kind in ("van", "lorry") and rng.random() < 0.6:
        paint = (222, 224, 224)
    jitter = rng.uniform(0.92, 1.06)
    return Car(kind, tuple(float(c * jitter) for c in paint), float(rng.uniform(0, 1)))


FIXED: dict[str, Colour] = {
    "under": (22, 22, 22), "seam": (34, 34, 36), "grille": (34, 34, 36),
    "plate rear": (52, 190, 226), "plate front": (226, 230, 230), "tail": (34, 26, 176), "tail pale": (120, 130, 232),
    "lamp": (226, 230, 228), "mirror": (44, 44, 46),
}  # fmt: skip


@lru_cache(maxsize=512)
def car_colours(car: Car, light: Light, forward: int) -> tuple[Colour, ...]:
    """The lit colour of every quad; `forward` is 1 with the camera, -1 towards it."""
    mesh = car_mesh(car.kind)
    out = []
    for normal, material in zip(mesh.normals * (forward, forward, 1), mesh.materials, strict=True):
        sky = f32(light.horizon)
        if material in ("glass", "screen", "screen top", "seat"):
            share = np.clip(0.10 + 0.34 * normal[2] + 0.16 * (material == "screen top"), 0, 0.6) * (material != "seat")
            out.append(tuple(float(v) for v in f32(GLASS) * (1 - share) + sky * share * 0.9))
            continue
        paint = f32(FIXED.get(material, car.paint))
        if material == "bumper":
            paint = paint * (1 - 0.75 * car.trim) + 10
        gain = light.gain(tuple(normal)) * (0.72 if material == "lower" else 1.0)
        lit = paint * gain
        if material in ("top", "upper", "side"):  # lacquer mirrors the sky
            lit += (sky - lit) * max(0.0, 0.06 + 0.24 * float(normal[2]))
        if material in ("tail", "tail pale", "lamp"):
            lit = paint * np.maximum(gain, 0.8)
        out.append(tuple(float(v) for v in np.clip(lit, 0, 255)))
    return tuple(out)


def paint_car(
    canvas: Canvas, light: Light, car: Car, at: tuple[float, float], forward: int, *, gain: float = 1.0
) -> None:
    """Draw a vehicle whose middle stands at street point (s, u); `gain` below 1 puts it in the shade."""
    mesh = car_mesh(car.kind)
    turn = np.array([forward, forward, 1.0])
    base = np.array([at[0], at[1], 0.0])
    view = canvas.camera.view((mesh.quads * turn + base).reshape(-1, 3)).reshape(-1, 4, 3)
    if view[..., 2].max() < NEAR_M:
        return
    _wheels(canvas, car, at, forward, under=True)
    # outward normals in view axes: right, down, ahead; the shear of the bend is too slight to matter
    normals = (mesh.normals * turn)[:, [1, 2, 0]] * (1, -1, 1)
    facing = np.sum(normals * view.mean(axis=1), axis=1) < 0
    size = canvas.camera.focal_px / max(2.0, float(view[..., 2].mean()))
    layers = 1 if size * 0.25 < 1.2 else 3
    colours = car_colours(car, light, forward)
    share = canvas.haze_share(float(view[..., 2].mean()))
    order = np.lexsort((-view[..., 2].mean(axis=1), mesh.layers))
    for i in order:
        if facing[i] and mesh.layers[i] < layers:
            shown = tuple(c * gain + (h - c * gain) * share for c, h in zip(colours[i], canvas.haze, strict=True))
            cut = clip_near(view[i])
            if len(cut) >= 3:
                canvas.fill(canvas.camera.pixels(cut), shown, Label.CAR)
        if mesh.layers[i] == 0 and i == order[int((mesh.layers == 0).sum()) - 1]:
            _wheels(canvas, car, at, forward, under=False)


_ROUND = np.linspace(0, 2 * np.pi, 18, endpoint=False)


def _wheels(canvas: Canvas, car: Car, at: tuple[float, float], forward: int, *, under: bool) -> None:
    """Tyres: `under` draws the tread beneath the body, else the arch, tyre and rim on the near flank."""
    rows = BODIES[car.kind]
    radius = WHEEL_M[car.kind]
    half = car.half_width_m
    near = 1 if (canvas.camera.offset_m - at[1]) * forward > 0 else -1
    for y in (rows[0][0] * 0.66, rows[-1][0] * 0.66):
        circle = np.stack([y + radius * np.cos(_ROUND), np.zeros(18), radius + radius * np.sin(_ROUND)], axis=1)
        if under:
            for side in (-1, 1):
                pair = np.concatenate([circle + np.array([0, side * x, 0]) for x in (half * 0.97, half - 0.2)])
                _disc(canvas, pair, at, forward, (26, 26, 27), hull=True)
            continue
        hub = np.array([y, near * (half + 0.006), radius])
        for scale, colour in (
            (1.20, (24, 24, 25)),
            (1.0, (38, 38, 39)),
            (0.64, (132, 134, 134)),
            (0.54, (78, 80, 80)),
            (0.3, (128, 130, 130)),
            (0.14, (70, 70, 70)),
        ):
            disc = (circle - (y, 0, radius)) * scale + hub
            if scale > 1:
                disc[:, 2] = np.maximum(disc[:, 2], rows[1][1])
            _disc(canvas, disc, at, forward, colour)


def _disc(
    canvas: Canvas, points: np.ndarray, at: tuple[float, float], forward: int, colour: Colour, *, hull: bool = False
) -> None:
    view = canvas.camera.view(points * (forward, forward, 1) + (at[0], at[1], 0))
    if view[:, 2].min() < NEAR_M:
        return
    pixels = canvas.camera.pixels(view)
    if hull:
        pixels = cv2.convexHull(pixels.astype(np.float32))[:, 0]
    canvas.fill(pixels, canvas.seen(colour, float(view[:, 2].mean())), Label.CAR)
