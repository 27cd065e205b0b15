"""Day made night: a street relit by its mask, as lamps of a car and of the street would light it.

Datasets of streets are of the day as a rule, and a network that has never seen a black sky calls it road. Nothing here
is physics: what matters is that the sky turns dark whatever its colour was, that asphalt and trees may vanish while
paint, signs and lamps stay, and that the reach of the light varies.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

# Blue of a clear evening, grey, the orange of a town's lamps on haze, black. BGR.
SKIES = np.array([(1.0, 0.35, 0.2), (0.75, 0.7, 0.7), (0.45, 0.6, 1.0), (0.2, 0.2, 0.2)], np.float32)
LAMPS = np.array([(0.75, 0.95, 1.0), (1.0, 1.0, 1.0), (0.35, 0.7, 1.0)], np.float32)
USUAL_HEIGHT = 360  # of CamVid's images here; lamps are drawn for it, and larger in larger images
TAIL_LIGHT = np.array((0.1, 0.1, 1.0), np.float32)


def make_night(image: np.ndarray, mask: np.ndarray, ids: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """The image by night.

    Args:
        image: (H, W, 3) uint8 BGR, of the day.
        mask: (H, W) uint8 class ids.
        ids: name -> id of CamVid's classes, of which "sky", "car", "pole", "building" and "sign_symbol" are told apart.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    height, width = mask.shape
    day = image.astype(np.float32) / 255.0
    street = day[mask != ids["sky"]]
    # Night has no shadows of the sun: a street that lay in them is as bright as another.
    bright = max(float(np.percentile(street, 95.0)), 0.05) if street.size else 1.0
    # The steeper, the sooner asphalt is black while paint is still white.
    steep = np.minimum(day / bright, 1.2) ** float(rng.uniform(1.0, 3.0))
    light = _ambient(rng) + _headlights(height, width, rng)[..., None] * LAMPS[rng.integers(len(LAMPS))]
    light = np.where((mask == ids["sign_symbol"])[..., None], light * 2.0 + 0.1, light)
    night = steep * light
    sky = (mask == ids["sky"]).astype(np.float32)
    # A soft edge, as lenses make it, so that the mask's own edge is not what is learnt.
    sky = cv2.GaussianBlur(sky, (0, 0), 1.0)[..., None]
    night = night * (1.0 - sky) + _sky(day, rng) * sky
    night = night + _lamps(mask, ids, rng, grain=max(1.0, height / USUAL_HEIGHT))
    night += rng.normal(0.0, rng.uniform(0.0, 0.02), night.shape).astype(np.float32)
    # Cameras lose what is nearly black.
    black = float(rng.uniform(0.0, 0.03))
    return (np.clip((night - black) / (1.0 - black), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _ambient(rng: np.random.Generator) -> np.ndarray:
    """Light from everywhere, (3,): from hardly any to that of a dusk."""
    level = np.exp(rng.uniform(np.log(0.02), np.log(0.7)))
    tint = SKIES[rng.integers(3)] ** 0.5
    return np.asarray(level * tint, np.float32)


def _headlights(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W): a cone that is brightest before the car, and of any reach; sometimes none."""
    power = float(rng.uniform(0.0, 1.5))
    reach_y, reach_x = rng.uniform(0.15, 0.8) * height, rng.uniform(0.3, 1.0) * width
    center_y, center_x = rng.uniform(0.6, 1.2) * height, rng.uniform(0.2, 0.8) * width
    ys = (np.arange(height, dtype=np.float32)[:, None] - center_y) / reach_y
    xs = (np.arange(width, dtype=np.float32)[None] - center_x) / reach_x
    return np.asarray(power * np.exp(-(ys**2) - xs**2), np.float32)


def _sky(day: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3): dark, of one tint, often lighter towards the horizon; now and then with a trace of its clouds."""
    height = len(day)
    level = float(np.exp(rng.uniform(np.log(0.005), np.log(0.35))))
    falloff = np.linspace(float(rng.uniform(0.2, 1.0)), 1.0, height, dtype=np.float32)[:, None, None]
    clouds = 1.0 + float(rng.uniform(0.0, 0.5)) * (day.mean(axis=2, keepdims=True) - 0.8)
    tint = SKIES[rng.integers(len(SKIES))] * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    return np.asarray(level * falloff * clouds * tint, np.float32)


def _lamps(mask: np.ndarray, ids: Mapping[str, int], rng: np.random.Generator, grain: float) -> np.ndarray:
    """(H, W, 3): lamps of cars, streets and windows, each with its glow; `grain` times as large as in a small image."""
    glow = np.zeros((*mask.shape, 3), np.float32)
    for name, most in (("car", 6), ("pole", 2), ("building", 5)):
        ys, xs = np.nonzero(mask == ids[name])
        for _ in range(int(rng.integers(most + 1)) if len(xs) else 0):
            index = int(rng.integers(len(xs)))
            colour = TAIL_LIGHT if name == "car" and rng.random() < 0.5 else LAMPS[rng.integers(len(LAMPS))]
            cv2.circle(
                glow, (int(xs[index]), int(ys[index])), round(grain * int(rng.integers(1, 4))), colour.tolist(), -1
            )
    if not glow.any():
        return glow
    wide = cv2.GaussianBlur(glow, (0, 0), grain * float(rng.uniform(3.0, 9.0)))
    near = cv2.GaussianBlur(glow, (0, 0), 0.8 * grain) * 1.5
    return np.asarray(near + wide * float(rng.uniform(0.5, 3.0)), np.float32)
