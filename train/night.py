"""Turn day into night: relight a street by its mask, as headlights and street lamps would.

Street datasets are mostly of daytime, and a network that has never seen a black sky calls it road. Nothing here is
physics: what matters is that the sky turns dark whatever its colour was, that asphalt and trees may vanish while paint,
signs and lamps stay, and that the reach of the light varies.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

# Blue of a clear evening, grey, the orange of a town's lamps on haze, black. BGR.
SKIES = np.array([(1.0, 0.35, 0.2), (0.75, 0.7, 0.7), (0.45, 0.6, 1.0), (0.2, 0.2, 0.2)], np.float32)
LAMPS = np.array([(0.75, 0.95, 1.0), (1.0, 1.0, 1.0), (0.35, 0.7, 1.0)], np.float32)
# The classes that relighting distinguishes.
NEEDED = ("sky", "building", "pole", "sign_symbol", "car")
USUAL_HEIGHT = 360  # of CamVid's images here; lamps are drawn for it, and larger in larger images
TAIL_LIGHT = np.array((0.1, 0.1, 1.0), np.float32)


def make_night(image: np.ndarray, mask: np.ndarray, ids: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """The image relit as if at night.

    Args:
        image: (H, W, 3) uint8 BGR, by day.
        mask: (H, W) uint8 class ids.
        ids: name -> id of the classes, those of `NEEDED` among them.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    height, width = mask.shape
    above = mask == ids["sky"]
    # Night has no sun shadows: a street that lay in shadow is brought to the same brightness as any other.
    bright = max(_brightness(image, ~above), 0.05)
    # The steeper the curve, the sooner asphalt turns black while paint is still white.
    steep = np.minimum(np.linspace(0.0, 1.0, 256) / bright, 1.2) ** float(rng.uniform(1.0, 3.0))
    night = np.asarray(cv2.LUT(image, steep.astype(np.float32)), np.float32)
    light = _ambient(rng) + _headlights(height, width, rng)[..., None] * LAMPS[rng.integers(len(LAMPS))]
    signs = mask == ids["sign_symbol"]
    light[signs] = light[signs] * 2.0 + 0.1
    night *= light
    # A soft edge, as lenses make it, so that the network does not learn the mask's hard edge.
    share = cv2.GaussianBlur(above.astype(np.float32), (0, 0), 1.0)[..., None]
    sky = _sky(image, rng)
    sky -= night
    sky *= share
    night += sky
    lamps = _lamps(mask, ids, rng, grain=max(1.0, height / USUAL_HEIGHT))
    if lamps is not None:
        night += lamps
    night += rng.normal(0.0, rng.uniform(0.0, 0.02), night.shape).astype(np.float32)
    # Cameras record what is nearly black as black.
    black = float(rng.uniform(0.0, 0.03))
    scale = 255.0 / (1.0 - black)
    # OpenCV rounds, and clips to 0..255.
    return np.asarray(cv2.addWeighted(night, scale, night, 0.0, -black * scale, dtype=cv2.CV_8U))


def _brightness(image: np.ndarray, where: np.ndarray) -> float:
    """The 95th percentile of the values in `where`, 0 to 1; 1 if there are none."""
    counts = sum(
        cv2.calcHist([image], [channel], where.view(np.uint8), [256], [0, 256]).ravel() for channel in range(3)
    )
    below = np.cumsum(counts)
    return float(np.searchsorted(below, 0.95 * below[-1])) / 255.0 if below[-1] else 1.0


def _ambient(rng: np.random.Generator) -> np.ndarray:
    """Ambient light, (3,): from almost none to that of dusk."""
    level = np.exp(rng.uniform(np.log(0.02), np.log(0.7)))
    tint = SKIES[rng.integers(3)] ** 0.5
    return np.asarray(level * tint, np.float32)


def _headlights(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W): a cone of light, brightest in front of the car, of varying reach and power down to none."""
    power = float(rng.uniform(0.0, 1.5))
    reach_y, reach_x = rng.uniform(0.15, 0.8) * height, rng.uniform(0.3, 1.0) * width
    center_y, center_x = rng.uniform(0.6, 1.2) * height, rng.uniform(0.2, 0.8) * width
    ys = (np.arange(height, dtype=np.float32)[:, None] - center_y) / reach_y
    xs = (np.arange(width, dtype=np.float32)[None] - center_x) / reach_x
    return np.asarray(power * np.exp(-(ys**2) - xs**2), np.float32)


def _sky(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3): a dark sky of one tint, often lighter towards the horizon, with a faint trace of the day's clouds."""
    height = len(image)
    level = float(np.exp(rng.uniform(np.log(0.005), np.log(0.35))))
    falloff = np.linspace(float(rng.uniform(0.2, 1.0)), 1.0, height, dtype=np.float32)[:, None, None]
    traced = float(rng.uniform(0.0, 0.5))
    grey = np.full((1, 3), 1.0 / (3.0 * 255.0), np.float32)
    clouds = cv2.transform(image.astype(np.float32), grey * traced)[..., None] + np.float32(1.0 - 0.8 * traced)
    tint = SKIES[rng.integers(len(SKIES))] * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    return np.asarray(level * falloff * clouds * tint, np.float32)


def _lamps(mask: np.ndarray, ids: Mapping[str, int], rng: np.random.Generator, grain: float) -> np.ndarray | None:
    """(H, W, 3): lamps of cars, streets and windows, each with its glow; `grain` times as large as in a small image.

    None if there are no lamps.
    """
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
        return None
    sigma = grain * float(rng.uniform(3.0, 9.0))
    # A blur this wide looks the same when done at a quarter of the size, in a tenth of the time.
    height, width = mask.shape
    small = cv2.resize(glow, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 4.0), (width, height), interpolation=cv2.INTER_LINEAR)
    near = cv2.GaussianBlur(glow, (0, 0), 0.8 * grain)
    return np.asarray(cv2.addWeighted(near, 1.5, wide, float(rng.uniform(0.5, 3.0)), 0.0))
