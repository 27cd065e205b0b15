"""The world of a scene: slots along its endless street, their random generators, and the textures that are kept.

Each thing depends only on the seed and its slot's number along the street, so a drive can begin anywhere. Knows nothing
of pixels but the finished picture's grading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from . import cutouts, paint
from .canvas import Canvas, Colour, f32
from .ground import Ground, Shade
from .plan import Label, Scene

FAR_M = 170.0
BACK_M = 12.0
BLOCK_M = 40.0
SIDEWAYS = 1.5
"""How much a metre to the side counts against a metre ahead when things are put in order.

A thing hides another only if it is both nearer and closer to the middle of the street, so any weight is right for small
things; this one also suits long walls, which are put in order by their far end.
"""


@dataclass(eq=False)
class Item:
    """Something to draw: its place in the order, how to draw it with a gain for shade, and the shadow it casts."""

    order: float
    draw: Callable[[Canvas, float], None]
    foot: tuple[float, float] | None = None
    shadow: Callable[[Shade], None] | None = None


def put(paint_thing: Callable[..., None], *args: Any, **options: Any) -> Callable[[Canvas, float], None]:
    """A painter with its arguments bound, for an `Item` whose light does not change."""
    return lambda canvas, gain: paint_thing(canvas, *args, **options)


def put_shaded(paint_thing: Callable[..., None], *args: Any) -> Callable[[Canvas, float], None]:
    """As `put`, for a thing that darkens where it stands in the shade."""
    return lambda canvas, gain: paint_thing(canvas, *args, gain=gain)


def cast(throw: Callable[..., None], *args: Any) -> Callable[[Shade], None]:
    """A shadow with its arguments bound."""
    return lambda shade: throw(shade, *args)


class World:
    """A scene's things and textures, made when first seen and kept for the next frame."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._kept: dict[tuple[Any, ...], Any] = {}
        light = scene.light
        self.sky = paint.sky_panorama(self.rng("sky"), light)
        self.ground = Ground(scene, self.rng("ground"))
        self.skylines = self._skylines()
        bare = scene.autumn > 0.75
        rng = self.rng("trees")
        self.trees = [
            cutouts.bare_tree(rng, light) if bare and k % 2 else cutouts.leafy_tree(rng, light, scene.autumn)
            for k in range(7)
        ]
        self.noise = self.rng("noise").normal(0, 1, (256, 256, 3)).astype(np.float32)

    def rng(self, name: str, side: int = 0, slot: int = 0) -> np.random.Generator:
        """The generator of one slot, the same wherever the drive began."""
        tag = int.from_bytes(name.encode(), "little")
        return np.random.default_rng((self.scene.seed, tag, side + 1, slot + (1 << 20)))

    def kept(self, key: tuple[Any, ...], make: Callable[..., Any], *args: Any) -> Any:
        """What `make` returned for this key, cached; the cache is emptied when it has grown past 3000 entries."""
        if key not in self._kept:
            if len(self._kept) > 3000:
                self._kept.clear()
            self._kept[key] = make(*args)
        return self._kept[key]

    def dice(self, count: int, name: str, side: int, slot: int) -> np.ndarray:
        """(count,) random floats of a slot, 0..1."""
        return self.rng(name, side, slot).random(count)

    def travel_m(self, time_s: float) -> float:
        """Where along the street the camera is by then, in metres."""
        return self.scene.speed_ms * time_s + 40.0

    def slots(self, travel: float, pitch: float, ahead: float = FAR_M, back: float = BACK_M) -> range:
        """The numbers of the slots in sight, `pitch` metres each."""
        return range(int(np.floor((travel - back) / pitch)), int(np.ceil((travel + ahead) / pitch)))

    def _skylines(self) -> list[tuple[np.ndarray, float, Colour, int]]:
        """Hills, then trees, that close the view; paler the farther."""
        scene, rng = self.scene, self.rng("skyline")
        haze = f32(scene.light.horizon)
        wave = paint.noise(rng, 8, 1024, 20, octaves=4)[0]
        hills = np.clip(0.5 + 0.4 * cv2.resize(wave[None], (1024, 1))[0], 0.1, 1)
        tops = paint.noise(rng, 8, 1024, 160, octaves=3)[0]
        crowns = np.clip(0.55 + 0.3 * tops + 0.2 * np.roll(wave, 300), 0.15, 1)
        flat = np.array(scene.light.ambient) + 0.4 * np.array(scene.light.direct)

        def mix(colour: Colour, share: float) -> Colour:
            return tuple(float(v) for v in f32(colour) * flat * (1 - share) + haze * share)

        return [
            (hills, 0.05, mix((120, 130, 110), 0.72), Label.TREE),
            (crowns, 0.038, mix((58, 92, 76), 0.5), Label.TREE),
        ]

    def order(self, s: float, u: float, travel: float) -> float:
        """The sort key of a thing: the larger, the earlier it is drawn."""
        return s - travel + SIDEWAYS * abs(u - self.scene.lens.offset_m)

    # the picture

    def develop(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """Apply the camera's tone, colour, softness, vignette and noise to a frame; (h, w, 3) uint8."""
        grade = self.scene.grade
        height, width = frame.shape[:2]
        blur = grade.blur_px * width / 480
        if blur > 0.15:
            frame = cv2.GaussianBlur(frame, (0, 0), blur)
        if grade.bloom:
            bright = cv2.GaussianBlur(cv2.subtract(frame, np.full_like(frame, 150)), (0, 0), 0.012 * width)
            frame = cv2.scaleAdd(bright, grade.bloom, frame)
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        mixed = cv2.addWeighted(frame, grade.saturation, cv2.merge([grey] * 3), 1 - grade.saturation, 0)
        ramp = (np.arange(256, dtype=np.float32) / 255) ** grade.gamma * 255
        table = np.clip(ramp[:, None] * f32(grade.gain), 0, 255).astype(np.uint8)[None]
        toned = cv2.LUT(mixed, table).astype(np.float32)
        toned *= self._vignette(height, width)
        shift = np.random.default_rng((self.scene.seed, round(time_s * 1000) & 0xFFFFFFFF)).integers(0, 256, 2)
        tile = np.roll(self.noise, tuple(shift), axis=(0, 1))
        grain = np.tile(tile, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
        toned += grain * f32(grade.noise)
        return np.clip(toned, 0, 255).astype(np.uint8)

    def _vignette(self, height: int, width: int) -> np.ndarray:
        def make() -> np.ndarray:
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            x = np.linspace(-1, 1, width, dtype=np.float32)[None]
            return (1 - self.scene.grade.vignette * (x * x + y * y) / 2)[..., None]

        return self.kept(("vignette", height, width), make)
