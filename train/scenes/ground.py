"""Sky, skyline and ground of the scene renderer, and the shadows on the ground.

Knows the road's plane and the horizon; nothing of what stands between them.
"""

from __future__ import annotations

import cv2
import numpy as np

from . import paint
from .canvas import NEAR_M, SHIFT_BITS, Camera, Canvas, Colour, Texture, clip_near, f32, fixed_point
from .plan import Label, Light, Scene

TABLE_HALF_M = 40.0
TABLE_PX_M = 100
_LIFT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def paint_sky(canvas: Canvas, panorama: np.ndarray, drift: float) -> None:
    """Cover the whole canvas with the sky, shifted by `drift`, a tangent of the bearing."""
    camera = canvas.camera
    cos, sin = camera.turn
    scale = paint.SKY_PX / camera.focal_px
    cx, cy = camera.centre
    across = [
        cos * scale,
        sin * scale,
        -(cos * cx + sin * cy) * scale + (camera.slope + drift) * paint.SKY_PX + panorama.shape[1] / 2,
    ]
    down = [-sin * scale, cos * scale, (sin * cx - cos * cy) * scale + panorama.shape[0] - 1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    canvas.colour[:] = cv2.warpAffine(
        panorama, np.array([across, down]), canvas.size, flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    canvas.labels[:] = Label.SKY


def paint_skyline(canvas: Canvas, ridge: np.ndarray, height: float, colour: Colour, label: int) -> None:
    """Paint a silhouette on the horizon; `ridge` (n,) 0..1 over the bearings whose tangent is -2..2."""
    camera = canvas.camera
    step = max(2, canvas.size[0] // 160)
    bearing = (np.arange(-4 * step, canvas.size[0] + 5 * step, step) - camera.centre[0]) / camera.focal_px
    tops = np.interp(bearing + camera.slope, np.linspace(-2, 2, len(ridge)), ridge) * height
    edge = np.stack([bearing, -tops, np.ones_like(bearing)], axis=1)
    low = np.array([[bearing[-1], 0.02, 1.0], [bearing[0], 0.02, 1.0]])
    pixels = camera.pixels(np.concatenate([edge, low]))
    corners = [fixed_point(pixels)]
    cv2.fillPoly(canvas.colour, corners, colour, cv2.LINE_8, SHIFT_BITS)
    cv2.fillPoly(canvas.labels, corners, int(label), cv2.LINE_8, SHIFT_BITS)


class Ground:
    """The road's plane: a tile seen from above, looked up for every pixel below the horizon."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        tile = paint.ground_tile(rng, scene.street, scene.light, scene.autumn)
        self._tile = Texture(np.concatenate([tile, tile[:128]]))
        span = np.arange(-TABLE_HALF_M, TABLE_HALF_M, 1 / TABLE_PX_M) + 0.5 / TABLE_PX_M
        self._table = np.zeros(len(span), np.uint8)
        for low, high, kind in paint.ground_profile(scene.street):
            self._table[(span >= low) & (span < high)] = paint.GROUND_LABEL[kind]

    def paint(self, canvas: Canvas, shade: np.ndarray, shade_colour: Colour) -> None:
        """Lay the ground; `shade` is (h, w) uint8 at half the canvas's size, 255 in full shade."""
        width, height = canvas.size
        camera = canvas.camera
        tilt = abs(camera.turn[1]) * width / 2
        top = int(np.clip(camera.centre[1] - tilt, 0, height))
        rows = np.arange(top, height)
        if not len(rows):
            return
        s, u, depth = camera.ground(rows, width)
        index = np.clip((u + TABLE_HALF_M) * TABLE_PX_M, 0, len(self._table) - 1).astype(np.int32)
        below = depth > 0
        labels = self._table[index]
        colour = self._look_up(camera, s, u, depth)
        gains = 255 - f32([255 - c for c in shade_colour]) * (np.arange(256, dtype=np.float32)[:, None] / 255)
        big = cv2.resize(shade, canvas.size, interpolation=cv2.INTER_LINEAR)[top:]
        gain = cv2.LUT(cv2.merge([big, big, big]), gains.astype(np.uint8)[None])
        colour = cv2.multiply(colour, gain, scale=1 / 255)
        self._hazed(canvas, colour, depth)
        if below.all():
            canvas.colour[top:], canvas.labels[top:] = colour, labels
        else:
            mask = below.astype(np.uint8)
            cv2.copyTo(colour, mask, canvas.colour[top:])
            cv2.copyTo(labels, mask, canvas.labels[top:])

    def _hazed(self, canvas: Canvas, colour: np.ndarray, depth: np.ndarray) -> None:
        """Haze row by row: the roll of the camera is too slight to show in it."""
        middle = np.where(depth[:, depth.shape[1] // 2] > 0, depth[:, depth.shape[1] // 2], 1e4)
        share = (1 - np.exp(-middle / canvas.haze_m)).astype(np.float32)
        far = np.flatnonzero(share > 0.004)
        if len(far):
            end = far[-1] + 1
            part = share[:end, None, None]
            colour[:end] = (colour[:end] * (1 - part) + f32(canvas.haze) * part).astype(np.uint8)

    def _look_up(self, camera: Camera, s: np.ndarray, u: np.ndarray, depth: np.ndarray) -> np.ndarray:
        along, across = paint.TILE_PX_M
        outer = paint.TILE_HALF_M - paint.OUTER_M
        beyond = np.abs(u) - paint.TILE_HALF_M
        # beyond the tile its outer strip repeats, mirrored every other time
        if (beyond > 0).any():
            folded = outer + np.abs(np.mod(beyond, 2 * paint.OUTER_M) - paint.OUTER_M)
            u = np.where(beyond > 0, np.sign(u) * folded, u)
        y = np.mod(s, f32(paint.TILE_M)) * along
        x = (u + paint.TILE_HALF_M) * across
        out = np.zeros((*depth.shape, 3), np.uint8)
        middle = depth[:, depth.shape[1] // 2]
        step = np.maximum(middle, 1e-3)
        # the camera's focal length and height decide which shrunk tile is used
        focal, eye = camera.focal_px, camera.height_m
        down = np.clip(np.floor(np.log2(np.maximum(step**2 / (focal * eye) * along, 1e-3)) + 0.4), 0, 6).astype(int)
        over = np.clip(np.floor(np.log2(np.maximum(step / focal * across, 1e-3)) + 0.4), 0, 5).astype(int)
        down[middle <= 0], over[middle <= 0] = 6, 5
        level = down * 8 + over
        edges = np.flatnonzero(np.diff(level)) + 1
        for a, b in zip(np.r_[0, edges], np.r_[edges, len(level)], strict=True):
            ly, lx = divmod(int(level[a]), 8)
            image = self._tile.level(lx, ly)
            map_x = x[a:b] * f32(0.5**lx) - f32(0.5)
            map_y = y[a:b] * f32(0.5**ly) - f32(0.5)
            out[a:b] = cv2.remap(image, map_x, np.maximum(map_y, 0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return out


class Shade:
    """Shadows on the ground, (h, w) uint8 at half the canvas's size."""

    def __init__(self, camera: Camera, light: Light, *, height: int, width: int) -> None:
        self.camera = camera
        self.mask = np.zeros((height, width), np.uint8)
        self.fall = (-light.sun[0] / light.sun[2], -light.sun[1] / light.sun[2])
        """Metres along the street and across it that a shadow falls for a metre of height."""

    def hull(self, points: np.ndarray, dark: int) -> None:
        """Darken the convex hull of (N, 2) ground points s, u."""
        flat = np.concatenate([np.asarray(points, np.float64), np.zeros((len(points), 1))], axis=1)
        view = clip_near(self.camera.view(cv2.convexHull(flat[:, :2].astype(np.float32))[:, 0] @ _LIFT))
        if len(view) < 3:
            return
        cv2.fillConvexPoly(self.mask, fixed_point(self.camera.pixels(view) / 2), dark, cv2.LINE_AA, SHIFT_BITS)

    def block(self, footprint: np.ndarray, height_m: float, dark: int) -> None:
        """The shadow of a block that stands on (N, 2) ground points."""
        foot = np.asarray(footprint, np.float64)
        self.hull(np.concatenate([foot, foot + np.array(self.fall) * height_m]), dark)

    def cutout(self, texture: Texture, foot: tuple[float, float], width_m: float, height_m: float, dark: int) -> None:
        """The dappled shadow of a cut-out that stands at `foot`."""
        s, u = foot
        ds, du = self.fall[0] * height_m, self.fall[1] * height_m
        # the cut-out turns to the sun: its width lies square to the shadow
        length = max(1e-6, float(np.hypot(ds, du)))
        ws, wu = -du / length * width_m / 2, ds / length * width_m / 2
        quad = np.array(
            [[s + ds - ws, u + du - wu, 0], [s + ds + ws, u + du + wu, 0], [s + ws, u + wu, 0], [s - ws, u - wu, 0]]
        )
        view = self.camera.view(quad)
        if view[:, 2].min() < NEAR_M:
            return
        pixels = self.camera.pixels(view) / 2
        low = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 1, self.mask.shape[::-1])
        if not (high > low).all():
            return
        alpha = np.ascontiguousarray(texture.level(1, 1)[..., 3])
        h, w = alpha.shape
        source = f32([[0, 0], [w, 0], [w, h], [0, h]])
        matrix = cv2.getPerspectiveTransform(source, (pixels - low).astype(np.float32))
        warped = cv2.warpPerspective(alpha, matrix, tuple(int(v) for v in high - low), flags=cv2.INTER_LINEAR)
        part = self.mask[low[1] : high[1], low[0] : high[0]]
        np.maximum(part, (warped * (dark / 255)).astype(np.uint8), out=part)

    def blur(self, sigma_px: float) -> None:
        """Soften the edges: the sun is not a point."""
        self.mask[:] = cv2.GaussianBlur(self.mask, (0, 0), sigma_px)

    def at(self, foot: tuple[float, float]) -> float:
        """Shade at a ground point, 0..1."""
        view = self.camera.view(np.array([[foot[0], foot[1], 0.0]]))
        if view[0, 2] < NEAR_M:
            return 0.0
        x, y = (self.camera.pixels(view)[0] / 2).astype(int)
        height, width = self.mask.shape
        return float(self.mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]) / 255
