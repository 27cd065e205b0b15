"""Procedural dashcam scenes with exact labels: an endless street, drawn from a seed.

`render` gives one frame and its class ids, `clip_frames` a drive. The classes are CamVid's twelve, by id: sky,
building, pole, road, pavement, tree, sign_symbol, fence, car, pedestrian, bicyclist, unlabelled. As in CamVid's
annotations, lane markings are labelled road, grass and hedges tree, garden walls building, the gaps of a railing fence.
Needs only numpy and OpenCV; knows nothing of Keras or of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np

from . import ground, street
from .canvas import Camera, Canvas
from .ground import Shade
from .movers import moving
from .plan import STYLES, Label, Scene
from .still import standing
from .world import Item, World

__all__ = ["LEAST_SIDE", "SHOWCASE_SEED", "SHOWCASE_STYLE", "STYLES", "Label", "Scene", "clip_frames", "render"]

SHOWCASE_SEED = 985
"""A sunny town street with a cyclist, zebra crossings, trees, railings; it shows every class within 8 s."""
SHOWCASE_STYLE = "town"

LEAST_SIDE = 64
"""Pixels; the least height and width of a frame."""

SUPER = 2
"""Samples a pixel, each way."""


def render(scene: Scene, *, time_s: float = 0.0, height: int = 360, width: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """One frame of the drive: (height, width, 3) uint8 BGR and (height, width) uint8 class ids.

    The same scene, time and size give the same bytes. `time_s` is seconds since the drive began.
    """
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"height and width must be at least {LEAST_SIDE}, not {height} and {width}")
    world = _world(scene)
    travel = world.travel_m(time_s)
    high, wide = height * SUPER, width * SUPER
    nod = 0.0016 * np.sin(2.1 * time_s) + 0.0009 * np.sin(5.3 * time_s + 1)
    camera = Camera(scene.lens, scene.bend, travel_m=travel, nod=nod, height=high, width=wide)
    canvas = Canvas(camera, haze=scene.light.horizon, haze_m=scene.light.haze_m, height=high, width=wide)
    items = standing(world, travel) + moving(world, travel, time_s)
    shade = Shade(camera, scene.light, height=(high + 1) // 2, width=(wide + 1) // 2)
    _paint_backdrop(canvas, world, shade, items, time_s)
    gains = [1.0 if item.foot is None else 1.0 - 0.5 * scene.light.shadow * shade.at(item.foot) for item in items]
    for item, gain in sorted(zip(items, gains, strict=True), key=lambda pair: -pair[0].order):
        item.draw(canvas, gain)
    if scene.bonnet:
        street.paint_bonnet(canvas, scene.light, scene.bonnet)
    frame: np.ndarray = cv2.resize(canvas.colour, (width, height), interpolation=cv2.INTER_AREA)
    labels = _vote(canvas.labels)
    frame = world.develop(frame, time_s)
    if scene.mirrored:
        frame, labels = frame[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(frame), np.ascontiguousarray(labels)


def clip_frames(
    scene: Scene, *, seconds: float, rate: int | Fraction, height: int, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A drive of `seconds` at `rate` frames a second, as `render` gives them."""
    for index in range(round(seconds * rate)):
        yield render(scene, time_s=float(index / rate), height=height, width=width)


def _vote(labels: np.ndarray) -> np.ndarray:
    """The most common id of each 2 by 2 samples, the first in a tie; ids are never mixed."""
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    return np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))


def _paint_backdrop(canvas: Canvas, world: World, shade: Shade, items: list[Item], time_s: float) -> None:
    """Paint sky, skyline, and the ground with every shadow on it."""
    light = world.scene.light
    ground.paint_sky(canvas, world.sky, 0.004 * time_s)
    for ridge, height, colour, label in world.skylines:
        ground.paint_skyline(canvas, ridge, height, colour, label)
    for item in items:
        if item.shadow is not None:
            item.shadow(shade)
    shade.blur(max(0.6, canvas.size[0] / 960))
    dark = 1 - light.shadow
    world.ground.paint(canvas, shade.mask, (255 * min(1, dark * 1.08), 255 * dark, 255 * dark * 0.97))


@lru_cache(maxsize=3)
def _world(scene: Scene) -> World:
    return World(scene)
