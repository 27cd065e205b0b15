"""Give a street the surfaces of other towns: each class in the mask gets a random lightness, tint and grain.

A dataset of one town shows only that town's asphalt, bricks and sky, and a network that has seen no others takes a pale
and smooth road for a car. Surfaces are redrawn at random here, while shapes and the shadows on them stay (Tobin and
others, 2017, arXiv 1703.06907, for rendered scenes; here it is done to photographs).
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

# How far each class's lightness (as a logarithm) and tint (of each channel) may vary. Roads are grey, of any lightness
# from wet asphalt to concrete; a car has any colour; leaves are green or brown.
REACH = {
    "sky": (0.5, 0.2),
    "building": (0.6, 0.2),
    "road": (0.9, 0.1),
    "pavement": (0.8, 0.15),
    "tree": (0.5, 0.15),
    "fence": (0.6, 0.2),
    "car": (0.8, 0.35),
}
# For poles, signs and people, which are recognised by the little that can be seen of them.
USUAL_REACH = (0.4, 0.15)
# Classes that may lose their grain; a wall or a tree without its grain would no longer be one.
PLAIN = ("sky", "road", "pavement")
REPAINTED = 0.6  # probability of each class
SMOOTHED = 0.5  # probability of each plain class that is repainted
WIDE = 2.0  # pixels; blurs from this sigma on are done at half the size


def repaint(image: np.ndarray, mask: np.ndarray, ids: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """The image with other surfaces.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 class ids; what is of no class in `ids` stays as it is.
        ids: name -> id of the classes.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    gains = np.ones((256, 3), np.float32)
    smoothness = np.zeros(256, np.float32)
    for name, index in ids.items():
        if name == "unlabelled" or rng.random() >= REPAINTED:
            continue
        lightness, tint = REACH.get(name, USUAL_REACH)
        gains[index] = np.exp(rng.uniform(-lightness, lightness) + rng.uniform(-tint, tint, 3))
        if name in PLAIN and rng.random() < SMOOTHED:
            smoothness[index] = rng.uniform(0.3, 1.0)
    painted = image.astype(np.float32)
    share = smoothness[mask]
    if share.any():
        painted = _smooth(painted, mask, share, sigma=float(np.exp(rng.uniform(np.log(1.5), np.log(8.0)))))
    # Soft at the edges, as a lens makes them, so that the network does not learn the mask's hard edge.
    painted *= cv2.GaussianBlur(gains[mask], (0, 0), 0.8)
    return np.asarray(np.clip(painted, 0.0, 255.0) + 0.5).astype(np.uint8)


def _smooth(image: np.ndarray, mask: np.ndarray, share: np.ndarray, sigma: float) -> np.ndarray:
    """Each class blurred within itself, and mixed with the image by `share`, (H, W) in 0..1."""
    smooth = image
    for index in np.unique(mask[share > 0]):
        inside = (mask == index).astype(np.float32)
        weight = _blur(inside, sigma)
        own = _blur(image * inside[..., None], sigma) / np.maximum(weight, 1e-3)[..., None]
        part = (inside * share)[..., None]
        smooth = smooth * (1.0 - part) + own * part
    return smooth


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; a wide one is done at half the size, which looks the same and takes a fraction of the time."""
    if sigma < WIDE:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    height, width = image.shape[:2]
    small = cv2.resize(image, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 2), (width, height), interpolation=cv2.INTER_LINEAR)
