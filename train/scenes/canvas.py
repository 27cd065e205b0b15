"""Camera, canvas and textures of the scene renderer: projects street points, paints labelled shapes.

Street points are (s, u, h): metres along the road, metres to the right of its centre line, metres above it.
Knows nothing of what a car or a house is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Colour = tuple[float, ...]
"""Blue, green, red, each 0..255."""


def f32(values: Any) -> np.ndarray:
    """Any numbers as a float32 array."""
    return np.asarray(values, np.float32)


def i32(values: Any) -> np.ndarray:
    """Any numbers as an int32 array, truncated towards zero."""
    return np.asarray(values).astype(np.int32)


NEAR_M = 0.8
_YIELDS = np.zeros(256, np.uint8)
_YIELDS[[0, 1, 3, 4, 5]] = 255  # sky, building, road, pavement and tree take the label of gaps that stand before them
SHIFT_BITS = 4
HAZE_STEPS = 24


@dataclass(frozen=True)
class Lens:
    """Where the camera sits and looks. Lengths in metres, angles in radians."""

    focal: float
    """Focal length as a share of the image's width."""
    horizon: float
    """Row of the horizon as a share of the image's height."""
    roll: float
    height_m: float
    offset_m: float
    """Metres to the right of the road's centre line."""


@dataclass(frozen=True)
class Bend:
    """The road's sideways wander: a sum of two sines of the distance along it."""

    amplitude_m: tuple[float, float]
    wave: tuple[float, float]
    phase: tuple[float, float]

    def at(self, s: np.ndarray | float) -> np.ndarray:
        """Sideways position in metres at distance `s`, shaped like `s`."""
        (a, b), (j, k), (p, q) = self.amplitude_m, self.wave, self.phase
        return a * np.sin(j * s + p) + b * np.sin(k * s + q)

    def slope(self, s: float) -> float:
        """Metres sideways a metre forward."""
        (a, b), (j, k), (p, q) = self.amplitude_m, self.wave, self.phase
        return float(a * j * np.cos(j * s + p) + b * k * np.cos(k * s + q))


class Camera:
    """Projects street points. The road is sheared, not rotated, into view, so the ground can be looked up exactly."""

    def __init__(self, lens: Lens, bend: Bend, *, travel_m: float, nod: float, height: int, width: int) -> None:
        self.bend = bend
        self.travel_m = travel_m
        self.height_m = lens.height_m
        self.offset_m = lens.offset_m
        self.focal_px = lens.focal * width
        self.centre = (0.5 * width, (lens.horizon + nod) * height)
        cos, sin = float(np.cos(lens.roll)), float(np.sin(lens.roll))
        self.turn = (cos, sin)
        self._turned = np.array([[cos, sin], [-sin, cos]])
        self.slope = bend.slope(travel_m)
        self.start_m = float(bend.at(travel_m))

    def view(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) street points -> (N, 3) metres right of, below and ahead of the camera."""
        ahead = points[:, 0] - self.travel_m
        right = points[:, 1] - self.offset_m + self.bend.at(points[:, 0]) - self.start_m - self.slope * ahead
        out = np.empty((len(points), 3))
        out[:, 0], out[:, 1], out[:, 2] = right, self.height_m - points[:, 2], ahead
        return out

    def pixels(self, view: np.ndarray) -> np.ndarray:
        """(N, 3) view points with a positive depth -> (N, 2) pixel x, y."""
        return (view[:, :2] * (self.focal_px / view[:, 2:3])) @ self._turned + self.centre

    def ground(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel rows -> s, u, depth in metres, each (rows, width) float32; depth is 0 above the horizon."""
        cos, sin = self.turn
        x = (np.arange(width, dtype=np.float32) + 0.5 - self.centre[0])[None, :]
        y = (rows.astype(np.float32) + 0.5 - self.centre[1])[:, None]
        down = cos * y - sin * x
        scale = np.where(down > 0.3, self.height_m / np.maximum(down, 0.3), 0).astype(np.float32)
        depth = scale * f32(self.focal_px)
        right = (cos * x + sin * y) * scale
        s = depth + f32(self.travel_m)
        u = right + self.offset_m - (self.bend.at(s) - self.start_m) + self.slope * depth
        return s, u.astype(np.float32), depth


class Texture:
    """An image painted once, (h, w, 3) or with alpha (h, w, 4) uint8, shrunk and hazed on demand.

    `solid` is an optional (h, w) uint8 mask for labels that differ from the alpha: CamVid's annotators label the gaps
    of a railing fence and those between twigs tree.
    """

    def __init__(self, image: np.ndarray, solid: np.ndarray | None = None) -> None:
        self.image = image
        opaque = image[..., 3].copy() if image.shape[2] == 4 else None
        self.mean: Colour = cv2.mean(image, opaque)[:3]
        self._solid = solid
        self._levels: dict[tuple[Any, ...], np.ndarray] = {}

    def level(self, across: int, down: int) -> np.ndarray:
        """The image shrunk by powers of two, each axis by its own power, as slanted walls need."""
        return self._shrunk("image", self.image, across, down)

    def solid(self, across: int, down: int) -> np.ndarray | None:
        """The label mask at that size, or None where the alpha (or the whole quad) is the mask."""
        return None if self._solid is None else self._shrunk("solid", self._solid, across, down)

    def hazed(self, across: int, down: int, haze: Colour, share: float) -> np.ndarray:
        """The shrunk image mixed with the haze; the share is rounded so that cached images serve a moving camera."""
        step = round(share * HAZE_STEPS)
        key = (across, down, haze, step)
        if key not in self._levels:
            image = self.level(across, down)
            mixed = image.astype(np.float32)
            mixed[..., :3] += (f32(haze) - mixed[..., :3]) * (step / HAZE_STEPS)
            self._levels[key] = mixed.astype(np.uint8)
        return self._levels[key]

    def _shrunk(self, name: str, image: np.ndarray, across: int, down: int) -> np.ndarray:
        key = (name, across, down)
        if key not in self._levels:
            size = (max(1, image.shape[1] >> across), max(1, image.shape[0] >> down))
            self._levels[key] = image if across == down == 0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return self._levels[key]


class Canvas:
    """A colour image and its labels, painted together from far to near."""

    def __init__(self, camera: Camera, *, haze: Colour, haze_m: float, height: int, width: int) -> None:
        self.camera = camera
        self.haze = haze
        self.haze_m = haze_m
        self.colour = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint8)
        self.size = (width, height)

    def haze_share(self, depth_m: float) -> float:
        """Share of haze in the colour of a thing at that depth, 0..1."""
        return 1.0 - float(np.exp(-max(depth_m, 0.0) / self.haze_m))

    def seen(self, colour: Colour, depth_m: float) -> Colour:
        """The colour as it looks through the haze."""
        share = self.haze_share(depth_m)
        return tuple(c + (h - c) * share for c, h in zip(colour, self.haze, strict=True))

    def fill(self, pixels: np.ndarray, colour: Colour, label: int) -> None:
        """Fill a convex polygon of (N, 2) pixel corners in the image and in the labels."""
        corners = fixed_point(pixels)
        cv2.fillConvexPoly(self.colour, corners, colour, cv2.LINE_8, SHIFT_BITS)
        cv2.fillConvexPoly(self.labels, corners, label, cv2.LINE_8, SHIFT_BITS)

    def polygon(self, points: np.ndarray, colour: Colour, label: int) -> None:
        """Fill a convex polygon of (N, 3) street points, cut at the near plane and seen through the haze."""
        self.view_polygon(self.camera.view(np.asarray(points, np.float64)), colour, label)

    def view_polygon(self, view: np.ndarray, colour: Colour, label: int) -> None:
        """As `polygon`, from (N, 3) view points."""
        depth = float(view[:, 2].mean())
        view = clip_near(view)
        if len(view) >= 3:
            self.fill(self.camera.pixels(view), self.seen(colour, depth), label)

    def capsule(self, ends: np.ndarray, radii: tuple[float, float], colour: Colour, label: int) -> None:
        """A round-ended, tapering limb: (2, 2) pixel ends and their radii in pixels."""
        self.fill(capsule_outline(ends, radii), colour, label)

    def rod(self, points: np.ndarray, radii_m: tuple[float, float], colour: Colour, label: int) -> None:
        """A capsule between two (2, 3) street points, its radii in metres; nothing if it reaches behind the camera."""
        view = self.camera.view(np.asarray(points, np.float64))
        if view[:, 2].min() > NEAR_M:
            scale = self.camera.focal_px / view[:, 2]
            radii = (max(0.5, radii_m[0] * scale[0]), max(0.5, radii_m[1] * scale[1]))
            self.capsule(self.camera.pixels(view), radii, self.seen(colour, float(view[:, 2].mean())), label)

    def panel(self, texture: Texture, corners: np.ndarray, label: int) -> None:
        """Hang a texture in the street: (4, 3) street points, top left, top right, bottom right, bottom left."""
        self.view_panel(texture, self.camera.view(np.asarray(corners, np.float64)), label)

    def view_panel(self, texture: Texture, view: np.ndarray, label: int) -> None:
        """As `panel`, from (4, 3) view points. Only its left and right ends may reach behind the camera."""
        depth = float(np.clip(view[:, 2], NEAR_M, None).mean())
        cut = _cut_panel(view)
        if cut is None:
            return
        view, span = cut
        pixels = self.camera.pixels(view)
        box = self._box(pixels)
        if box is None:
            return
        share = self.haze_share(depth)
        extent = np.hypot(*(pixels[[1, 2]] - pixels[[0, 3]]).T).max(), np.hypot(*(pixels[3] - pixels[0]))
        if max(extent) < 5 and texture.image.shape[2] == 3:
            self.fill(pixels, self.seen(texture.mean, depth), label)
            return
        down = _halvings(
            texture.image.shape[0], max(np.hypot(*(pixels[3] - pixels[0])), np.hypot(*(pixels[2] - pixels[1])))
        )
        across = _halvings(texture.image.shape[1] * (span[1] - span[0]), extent[0])
        self._paste(texture, (across, down), span, pixels, box, share, label)

    def _box(self, pixels: np.ndarray) -> tuple[int, int, int, int] | None:
        low = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 2, self.size)
        return (low[0], low[1], high[0], high[1]) if (high > low).all() else None

    def _paste(
        self,
        texture: Texture,
        level: tuple[int, int],
        span: tuple[float, float],
        pixels: np.ndarray,
        box: tuple[int, int, int, int],
        share: float,
        label: int,
    ) -> None:
        x0, y0, x1, y1 = box
        image = texture.hazed(*level, self.haze, share)
        h, w = image.shape[:2]
        left, right = span[0] * w, span[1] * w
        source = f32([[left, 0], [right, 0], [right, h], [left, h]]) - 0.5
        target = (pixels - 0.5 - (x0, y0)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        size = (int(x1 - x0), int(y1 - y0))
        warped: Any = cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask: np.ndarray = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillConvexPoly(mask, np.round(target * 16).astype(np.int32), 255, cv2.LINE_8, SHIFT_BITS)
        ground: Any = mask
        label_mask: Any = mask
        if image.shape[2] == 4:
            ground = cv2.bitwise_and(mask, cv2.threshold(warped[..., 3], 127, 255, cv2.THRESH_BINARY)[1])
            label_mask, warped = ground, np.ascontiguousarray(warped[..., :3])
            solid = texture.solid(*level)
            if solid is not None:
                held = cv2.warpPerspective(solid, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                gaps = cv2.bitwise_and(mask, cv2.threshold(held, 127, 255, cv2.THRESH_BINARY)[1])
                # people and cars behind a railing keep their labels between its bars
                label_mask = cv2.bitwise_or(ground, cv2.bitwise_and(gaps, _YIELDS[self.labels[y0:y1, x0:x1]]))
        cv2.copyTo(warped, ground, self.colour[y0:y1, x0:x1])
        self.labels[y0:y1, x0:x1][label_mask > 0] = label


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """(N, 2) pixel corners as OpenCV's polygons take them: int32 with `SHIFT_BITS` binary places."""
    return np.round((pixels - 0.5) * (1 << SHIFT_BITS)).astype(np.int32)


def clip_near(view: np.ndarray) -> np.ndarray:
    """The part of a convex polygon of (N, 3) view points that lies beyond the near plane."""
    depth = view[:, 2]
    if depth.min() >= NEAR_M:
        return view
    kept = []
    for here, there in zip(view, np.roll(view, -1, axis=0), strict=True):
        if here[2] >= NEAR_M:
            kept.append(here)
        if (here[2] >= NEAR_M) != (there[2] >= NEAR_M):
            kept.append(here + (there - here) * ((NEAR_M - here[2]) / (there[2] - here[2])))
    return np.array(kept).reshape(-1, 3)


def capsule_outline(ends: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """(12, 2) corners of a round-ended limb."""
    (ax, ay), (bx, by) = ends.tolist()
    dx, dy = bx - ax, by - ay
    length = (dx * dx + dy * dy) ** 0.5
    dx, dy = (dx / length, dy / length) if length > 1e-6 else (1.0, 0.0)
    around = _CAP @ np.array([[dx, dy], [-dy, dx]])
    out = np.empty((2 * len(_CAP), 2))
    out[: len(_CAP)] = around * radii[0] + (ax, ay)
    out[len(_CAP) :] = around * -radii[1] + (bx, by)
    return out


_CAP = np.stack([np.cos(np.pi * np.linspace(0.5, 1.5, 6)), np.sin(np.pi * np.linspace(0.5, 1.5, 6))], axis=1)


def _halvings(texels: float, pixels: float) -> int:
    return int(np.clip(np.floor(np.log2(max(texels, 1.0) / max(pixels, 1.0)) + 0.25), 0, 7))


def _cut_panel(view: np.ndarray) -> tuple[np.ndarray, tuple[float, float]] | None:
    """The part of a panel beyond the near plane, and the range of its width, as shares, that is left."""
    near, far = view[[0, 3], 2].min(), view[[1, 2], 2].min()
    if near >= NEAR_M and far >= NEAR_M:
        return view, (0.0, 1.0)
    if near < NEAR_M and far < NEAR_M:
        return None
    edge = float((NEAR_M - near) / (far - near))
    span = (edge, 1.0) if near < NEAR_M else (0.0, edge)
    left, right = view[[0, 3]], view[[1, 2]]
    (top_a, low_a), (top_b, low_b) = (left + (right - left) * t for t in span)
    return np.array([top_a, top_b, low_b, low_a]), span
