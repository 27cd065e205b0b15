"""Augmentation of an image and its mask, all drawn from one generator: geometry, rare objects, light and lens.

Images are (H, W, 3) uint8 BGR, masks (H, W) uint8; masks are only ever warped by nearest neighbour. A teacher's opinion
of an image (`Example.opinion`) is warped with the image. Knows nothing of files or networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from edge_seg.spec import CAMVID_CLASSES

from .augmentation import Augmentation
from .night import make_night
from .repaint import repaint

IDS = {name: index for index, name in enumerate(CAMVID_CLASSES)}
# Images whose sides differ from the network's by at most this share are cropped at their own scale.
NEARLY = 0.1


Pair = tuple[np.ndarray, np.ndarray]


class Example(NamedTuple):
    """An image, its mask and, with a teacher, the teacher's opinion of the image.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 class ids.
        opinion: (h, w, classes) uint8, probabilities times 255 over the same field of view, often at a lower
            resolution.
    """

    image: np.ndarray
    mask: np.ndarray
    opinion: np.ndarray | None = None


def augment(
    example: Example,
    other: Example,
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
    *,
    rare: tuple[int, ...],
    fill: int | None,
    view: tuple[int, int] | None = None,
    ids: Mapping[str, int] = IDS,
) -> Example:
    """One training crop; its opinion, if any, has the crop's size.

    Args:
        example: what the crop is cut from.
        other: what rare objects are copied from; has an opinion if `example` has one.
        size: (height, width) of the crop.
        rare: ids of the rare classes.
        fill: mask id outside the image (the unlabelled class); None uses the mirrored mask there.
        view: (height, width) to which whole images are resized for the network; None keeps the image's own scale.
        ids: name -> id of the classes that are relit and repainted.
    """
    if rng.random() < options.paste:
        example = paste_rare(example, other, rare, rng)
    matrix = draw_crop(example.mask, size, options, rng, rare=rare, view=view)
    image, mask, opinion = warp(example, matrix, size, fill)
    if options.night and rng.random() < options.night:
        image = make_night(image, _seen(example.mask, opinion, matrix, size, fill), ids, rng)
    else:
        if options.repaint and rng.random() < options.repaint:
            image = repaint(image, _seen(example.mask, opinion, matrix, size, fill), ids, rng)
        if options.light:
            image = change_light(image, options.light, rng)
    if rng.random() < options.lens:
        image = degrade_lens(image, rng)
    return Example(image, mask, opinion)


def _seen(
    mask: np.ndarray, opinion: np.ndarray | None, matrix: np.ndarray, size: tuple[int, int], fill: int | None
) -> np.ndarray:
    """Class ids of everything a crop shows, (height, width) uint8, also where its mask is `fill`.

    Beyond the image's edge the crop shows a mirror image, so the mask is mirrored there. Pixels still unlabelled take
    the teacher's most probable class.
    """
    seen = _warp_mask(mask, matrix, size, cv2.BORDER_REFLECT_101)
    if opinion is None or fill is None:
        return seen
    return np.where(seen == fill, opinion.argmax(axis=-1), seen).astype(np.uint8)


def paste_rare(example: Example, other: Example, rare: tuple[int, ...], rng: np.random.Generator) -> Example:
    """Copy the other image's objects of up to three rare classes onto this image, in place or mirrored."""
    image, mask, opinion = example
    source, source_mask, source_opinion = other
    there = _present(source_mask, rare)
    if source_mask.shape != mask.shape or not there:
        return example
    mirrored = rng.random() < 0.5
    if mirrored:
        source, source_mask = source[:, ::-1], source_mask[:, ::-1]
    chosen = rng.choice(there, size=min(len(there), int(rng.integers(1, 4))), replace=False)
    where = np.isin(source_mask, chosen)
    image, mask = image.copy(), mask.copy()
    image[where], mask[where] = source[where], source_mask[where]
    if opinion is not None and source_opinion is not None:
        opinion = opinion.copy()
        theirs = source_opinion[:, ::-1] if mirrored else source_opinion
        # In float32, or what covers less than half of an opinion's cell, as a pole does, would be rounded away.
        coarse = cv2.resize(where.astype(np.float32), opinion.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
        opinion[coarse] = theirs[coarse]
    return Example(image, mask, opinion)


def draw_crop(
    mask: np.ndarray,
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
    *,
    rare: tuple[int, ...],
    view: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draw zoom, stretch, rotation, mirroring and cut as one (2, 3) affine map, so that each pixel is filtered once."""
    height, width = size
    zoom = float(np.exp(rng.uniform(np.log(options.scale[0]), np.log(options.scale[1]))))
    stretch = float(np.exp(rng.uniform(-1, 1) * np.log(options.aspect) / 2))
    own_y, own_x = view_scale(mask.shape, view)
    zoom_x, zoom_y = own_x * zoom * stretch, own_y * zoom / stretch
    center_x, center_y = _crop_center(mask, (height / zoom_y, width / zoom_x), options, rng, rare)
    angle = np.deg2rad(rng.uniform(-1, 1) * options.rotate_deg)
    mirror = -1.0 if rng.random() < options.flip else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.diag([mirror, 1.0]) @ turn @ np.diag([zoom_x, zoom_y])
    shift = np.array([(width - 1) / 2, (height - 1) / 2]) - linear @ np.array([center_x, center_y])
    return np.column_stack([linear, shift])


def warp(example: Example, matrix: np.ndarray, size: tuple[int, int], fill: int | None) -> Example:
    """Cut an example to (height, width); beyond its edges the image is mirrored and the mask is `fill`.

    With `fill` None the mask is mirrored too.
    """
    image, mask, opinion = example
    warped = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if opinion is not None:
        opinion = _warp_opinion(opinion, matrix, mask.shape, size)
    border = cv2.BORDER_REFLECT_101 if fill is None else cv2.BORDER_CONSTANT
    return Example(warped, _warp_mask(mask, matrix, size, border, fill or 0), opinion)


def _warp_mask(mask: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int, fill: int = 0) -> np.ndarray:
    return cv2.warpAffine(mask, matrix, size[::-1], flags=cv2.INTER_NEAREST, borderMode=border, borderValue=(fill,))


def view_scale(shape: tuple[int, ...], view: tuple[int, int] | None) -> tuple[float, float]:
    """Factors from an image's (height, width) to the network's `view`; 1 where the image has about that size already.

    A 1080x1920 frame is seen at 352x480: crops at its own scale would show everything three to four times as large.
    """
    if view is None:
        return 1.0, 1.0
    factors = view[0] / shape[0], view[1] / shape[1]
    return (1.0, 1.0) if all(abs(factor - 1.0) <= NEARLY for factor in factors) else factors


def _warp_opinion(opinion: np.ndarray, matrix: np.ndarray, full: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Warp an opinion like its image, whose (2, 3) `matrix` is in pixels of the `full` (height, width)."""
    scale_y, scale_x = full[0] / opinion.shape[0], full[1] / opinion.shape[1]
    # Maps pixel centres: that of a half-size map's first pixel lies between the image's first two.
    to_full = np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])
    parts = [  # cv2 warps no more than four channels at once.
        cv2.warpAffine(
            np.ascontiguousarray(opinion[..., first : first + 4]), matrix @ to_full, size[::-1],
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101,
        ).reshape(*size, -1)
        for first in range(0, opinion.shape[-1], 4)
    ]  # fmt: skip
    return np.concatenate(parts, axis=-1)


def _crop_center(
    mask: np.ndarray,
    extent: tuple[float, float],
    options: Augmentation,
    rng: np.random.Generator,
    rare: tuple[int, ...],
) -> tuple[float, float]:
    if rare and rng.random() < options.rare_focus and (there := _present(mask, rare)):
        ys, xs = np.nonzero(mask == rng.choice(there))
        index = int(rng.integers(len(xs)))
        jitter = rng.uniform(-0.25, 0.25, 2)
        y, x = ys[index] + jitter[0] * extent[0], xs[index] + jitter[1] * extent[1]
        return _clamp(x, extent[1], mask.shape[1]), _clamp(y, extent[0], mask.shape[0])
    y = _clamp(rng.uniform(0, mask.shape[0]) - 0.5, extent[0], mask.shape[0])
    return _clamp(rng.uniform(0, mask.shape[1]) - 0.5, extent[1], mask.shape[1]), y


def _present(mask: np.ndarray, rare: tuple[int, ...]) -> list[int]:
    """Those of the rare classes that a mask holds.

    One is drawn among them, not among all: an image holds few of a long list, and most draws would come to nothing.
    """
    pixels = np.bincount(mask.ravel(), minlength=256)
    return [index for index in rare if pixels[index]]


def _clamp(center: float, extent: float, length: int) -> float:
    """Keep the crop inside the image where it fits; centre it where it does not.

    Whole numbers are the centres of pixels, as for cv2: an image reaches from -0.5 to length - 0.5.
    """
    low, high = (extent - 1) / 2, length - (extent + 1) / 2
    return (length - 1) / 2 if extent >= length else float(min(max(center, low), high))


def change_light(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change exposure, contrast, gamma, white balance and saturation; sometimes add haze or a shadow."""
    levels = np.linspace(0.0, 1.0, 256)
    gamma = np.exp(rng.uniform(-0.45, 0.45) * strength)
    gain = np.exp(rng.uniform(-0.35, 0.35) * strength)
    lift = rng.uniform(-0.12, 0.12) * strength
    base = (levels**gamma - 0.5) * np.exp(rng.uniform(-0.3, 0.3) * strength) + 0.5
    balance = np.exp(rng.uniform(-0.12, 0.12, 3) * strength)
    table = np.clip((base[:, None] * gain + lift) * balance, 0.0, 1.0)
    image = cv2.LUT(image, (table * 255 + 0.5).astype(np.uint8).reshape(256, 1, 3))
    keep = np.clip(1.0 + rng.uniform(-0.6, 0.4) * strength, 0.0, 1.5) if rng.random() > 0.05 else 0.0
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    image = cv2.addWeighted(image, float(keep), grey, float(1.0 - keep), 0.0)
    if rng.random() < 0.15 * strength:
        haze = np.full_like(image, int(rng.integers(150, 240)))
        amount = float(rng.uniform(0.1, 0.5))
        image = cv2.addWeighted(image, 1.0 - amount, haze, amount, 0.0)
    if rng.random() < 0.2 * strength:
        image = _cast_shadow(image, rng)
    return image


def _cast_shadow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    corners = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    area = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(corners.astype(np.int32)), 255)
    soft = np.asarray(cv2.blur(area, (9, 9)), np.float32)
    darkness = soft[..., None] / 255.0 * float(rng.uniform(0.2, 0.55))
    return (image * (1.0 - darkness) + 0.5).astype(np.uint8)


def degrade_lens(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply one of: defocus, motion blur, sensor noise, JPEG artefacts, a low-resolution camera."""
    kind = int(rng.integers(5))
    if kind == 0:
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.6)))
    if kind == 1:
        length = int(rng.choice((3, 5, 7)))  # odd: about the pixel itself, or the picture would move against its mask
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1.0 / length
        return cv2.filter2D(image, -1, kernel if rng.random() < 0.6 else kernel.T)
    if kind == 2:
        noise = rng.normal(0.0, rng.uniform(2, 12), image.shape)
        return np.asarray(np.clip(image + noise, 0, 255) + 0.5).astype(np.uint8)
    if kind == 3:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])[1]
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    factor = float(rng.uniform(0.4, 0.8))
    height, width = image.shape[:2]
    # A whole number of pixels, not a factor: by that, the way back would be another and move the picture.
    small = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
