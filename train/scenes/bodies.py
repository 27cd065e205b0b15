"""The shapes of the scene renderer's vehicles: meshes of few quads, which only need a colour each.

A mesh's points are (y, x, h): metres forward of the car's middle, to its right, above the road.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

# stations along a body: y, sill, shoulder, roof, half width
BODIES: dict[str, tuple[tuple[float, ...], ...]] = {
    "hatch": (
        (-1.95, 0.36, 0.78, 0.82, 0.76), (-1.88, 0.28, 0.93, 0.97, 0.82), (-1.50, 0.22, 0.95, 1.38, 0.85),
        (-0.60, 0.20, 0.95, 1.47, 0.86), (0.30, 0.20, 0.94, 1.43, 0.86), (1.02, 0.20, 0.91, 0.96, 0.85),
        (1.70, 0.24, 0.78, 0.83, 0.82), (1.97, 0.32, 0.60, 0.63, 0.74),
    ),
    "saloon": (
        (-2.25, 0.36, 0.80, 0.84, 0.78), (-2.18, 0.28, 0.92, 0.96, 0.83), (-1.62, 0.22, 0.94, 0.99, 0.86),
        (-1.00, 0.20, 0.94, 1.38, 0.87), (-0.20, 0.20, 0.93, 1.42, 0.87), (0.40, 0.20, 0.92, 1.38, 0.87),
        (1.12, 0.20, 0.90, 0.95, 0.86), (1.95, 0.24, 0.78, 0.82, 0.83), (2.25, 0.32, 0.60, 0.63, 0.75),
    ),
    "estate": (
        (-2.20, 0.36, 0.84, 0.90, 0.79), (-2.12, 0.28, 0.96, 1.04, 0.84), (-1.88, 0.24, 0.98, 1.46, 0.86),
        (-0.80, 0.22, 0.98, 1.54, 0.88), (0.35, 0.22, 0.97, 1.50, 0.88), (1.10, 0.22, 0.94, 1.00, 0.87),
        (1.90, 0.26, 0.82, 0.87, 0.84), (2.20, 0.34, 0.64, 0.67, 0.77),
    ),
    "suv": (
        (-2.10, 0.46, 0.94, 1.00, 0.84), (-2.04, 0.40, 1.08, 1.14, 0.88), (-1.80, 0.34, 1.10, 1.62, 0.90),
        (-0.70, 0.32, 1.10, 1.72, 0.91), (0.30, 0.32, 1.08, 1.68, 0.91), (0.95, 0.32, 1.06, 1.14, 0.90),
        (1.80, 0.36, 0.98, 1.03, 0.88), (2.10, 0.44, 0.80, 0.82, 0.82),
    ),
    "van": (
        (-2.45, 0.40, 1.10, 2.00, 0.90), (-2.40, 0.32, 1.12, 2.12, 0.95), (-1.00, 0.28, 1.12, 2.16, 0.96),
        (0.90, 0.28, 1.12, 2.12, 0.96), (1.60, 0.30, 1.10, 1.28, 0.94), (2.20, 0.34, 0.98, 1.06, 0.90),
        (2.45, 0.40, 0.76, 0.80, 0.84),
    ),
    "lorry": (
        (-3.60, 0.70, 1.30, 3.10, 1.15), (-3.58, 0.60, 1.30, 3.12, 1.16), (1.60, 0.55, 1.30, 3.12, 1.16),
        (1.62, 0.45, 1.30, 2.50, 1.10), (2.90, 0.40, 1.25, 2.45, 1.08), (3.30, 0.40, 1.20, 1.30, 1.05),
    ),
    "bus": (
        (-5.00, 0.50, 1.30, 4.10, 1.18), (-4.95, 0.36, 1.30, 4.20, 1.22), (0.00, 0.34, 1.30, 4.24, 1.22),
        (4.60, 0.34, 1.30, 4.20, 1.22), (4.95, 0.40, 1.20, 4.00, 1.18),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Mesh:
    """Quads (n, 4, 3) in metres, their outward normals (n, 3), materials, and layers (details lie over the body)."""

    quads: np.ndarray
    normals: np.ndarray
    materials: tuple[str, ...]
    layers: np.ndarray


class _Builder:
    def __init__(self) -> None:
        self.quads: list[np.ndarray] = []
        self.materials: list[str] = []
        self.layers: list[int] = []

    def add(self, quad: object, material: str, layer: int = 0) -> None:
        self.quads.append(np.array(quad, np.float64))
        self.materials.append(material)
        self.layers.append(layer)

    def both(self, quad: object, material: str, layer: int = 0) -> None:
        """The quad and its mirror image on the left."""
        points = np.array(quad, np.float64)
        self.add(points, material, layer)
        self.add(points * (1, -1, 1), material, layer)

    def mesh(self) -> Mesh:
        quads = np.array(self.quads)
        normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        middle = quads.mean(axis=1)
        # a car is nearly convex: outward is away from its spine
        spine = np.stack([middle[:, 0] * 0.7, np.zeros(len(quads)), np.full(len(quads), 0.75)], axis=1)
        flip = np.sum(normals * (middle - spine), axis=1) < 0
        normals[flip] *= -1
        return Mesh(quads, normals, tuple(self.materials), np.array(self.layers))


def _inset(quad: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """Part of a quad (top left, top right, bottom right, bottom left), by shares of its sides."""
    at = lambda x, y: (quad[0] * (1 - x) + quad[1] * x) * (1 - y) + (quad[3] * (1 - x) + quad[2] * x) * y  # noqa: E731
    return np.array([at(left, top), at(right, top), at(right, bottom), at(left, bottom)])


@cache
def car_mesh(kind: str) -> Mesh:
    """The mesh of a kind of vehicle, all details included."""
    build = _Builder()
    rows = BODIES[kind]
    boxy = kind in ("van", "lorry", "bus")
    rings = [_ring(row, boxy) for row in rows]
    for (a, ring_a), (b, ring_b) in pairwise(zip(rows, rings, strict=True)):
        for k, material in enumerate(("lower", "upper", "side")):
            build.both([ring_a[k + 1], ring_b[k + 1], ring_b[k], ring_a[k]], material)
        left_a, left_b = ring_a[3] * (1, -1, 1), ring_b[3] * (1, -1, 1)
        top = np.array([left_b, ring_b[3], ring_a[3], left_a])
        build.add(top, "top")
        steep = abs(b[3] - a[3]) > 0.25 and (b[0] - a[0]) < 1.3
        if steep and kind != "lorry":
            high_first = b[3] > a[3]
            quad = top if high_first else np.array([ring_a[3], left_a, left_b, ring_b[3]])
            _screen(build, quad)
    for ring, material in ((rings[0], "rear"), (rings[-1], "front")):
        left = ring * (1, -1, 1)
        for k in range(3):
            build.add([ring[k], ring[k + 1], left[k + 1], left[k]], "lower" if k == 0 else material)
    _side_windows(build, kind, rings)
    _rear_details(build, kind)
    _front_details(build, kind)
    return build.mesh()


def _screen(build: _Builder, quad: np.ndarray) -> None:
    """A windscreen or rear window: dark, with the tops of two seats behind it and the sky along its upper edge."""
    build.add(_inset(quad, 0.06, 0.94, 0.08, 0.94), "screen", 1)
    for x in (0.2, 0.62):
        build.add(_inset(quad, x, x + 0.2, 0.52, 0.92), "seat", 2)
    build.add(_inset(quad, 0.06, 0.94, 0.08, 0.30), "screen top", 2)


def _ring(row: tuple[float, ...], boxy: bool) -> np.ndarray:
    """The right half of a cross-section, (4, 3), from the sill up."""
    y, sill, shoulder, roof, half = row
    cabin = roof - shoulder > 0.2
    top = half * (0.95 if boxy else 0.76) if cabin else half - 0.07
    middle = sill + 0.45 * (shoulder - sill)
    return np.array([(y, half * 0.95, sill), (y, half, middle), (y, half * 0.97, shoulder), (y, top, roof)])


def _side_windows(build: _Builder, kind: str, rings: list[np.ndarray]) -> None:
    if kind == "lorry":
        a, b = rings[3], rings[4]
        build.both(_inset(np.array([a[3], b[3], b[2], a[2]]), 0.25, 0.9, 0.15, 0.85), "glass", 1)
        return
    if kind == "bus":
        for a, b in ((rings[1], rings[2]), (rings[2], rings[3])):
            side = np.array([a[3], b[3], b[2], a[2]])
            for k in range(4):
                for top, low in ((0.10, 0.38), (0.56, 0.98)):
                    build.both(_inset(side, 0.25 * k + 0.02, 0.25 * k + 0.235, top, low), "glass", 1)
        return
    for a, b in pairwise(rings):
        side = np.array([a[3], b[3], b[2], a[2]])
        tall_a, tall_b = a[3, 2] - a[2, 2] > 0.2, b[3, 2] - b[2, 2] > 0.2
        if tall_a and tall_b and b[0, 0] - a[0, 0] > 0.3 and (kind != "van" or a[0, 0] > -1.1):
            start = 0.62 if kind == "van" else 0.05
            build.both(_inset(side, start, 0.94, 0.12, 0.92), "glass", 1)
        elif tall_a and not tall_b:  # the corner behind the windscreen's pillar
            build.both(
                [a[3] * 0.86 + a[2] * 0.14, b[3] * 0.5 + a[3] * 0.5, b[2] * 0.6 + a[2] * 0.4, a[2] + (0.04, 0, 0.04)],
                "glass",
                1,
            )
    _door_lines(build, kind)


def _door_lines(build: _Builder, kind: str) -> None:
    half, shoulder = max(row[4] for row in BODIES[kind]) + 0.004, 0.9
    for y in (-0.75, 0.15, 1.0):
        build.both(
            [(y, half, shoulder), (y + 0.025, half, shoulder), (y + 0.025, half, 0.3), (y, half, 0.3)], "seam", 1
        )
    for y in (-0.62, 0.28):
        build.both([(y, half, 0.80), (y + 0.2, half, 0.80), (y + 0.2, half, 0.76), (y, half, 0.76)], "seam", 1)
    y = 0.62 if kind != "van" else 1.3
    for end in (y, y - 0.14):
        build.both(
            [(end, half, 1.08), (end, half + 0.2, 1.08), (end, half + 0.2, 0.94), (end, half, 0.94)], "mirror", 2
        )


def _rear_details(build: _Builder, kind: str) -> None:
    y0, sill, shoulder, roof, half = BODIES[kind][0]
    y = y0 - 0.02

    def quad(x0: float, x1: float, low: float, high: float, back: float = 0.0) -> list[tuple[float, float, float]]:
        return [(y - back, x0, high), (y - back, x1, high), (y - back, x1, low), (y - back, x0, low)]

    build.add(quad(-half * 0.98, half * 0.98, sill - 0.04, sill + 0.16), "bumper", 1)
    build.add(quad(-half * 0.9, half * 0.9, sill - 0.14, sill - 0.02), "under", 1)
    if kind in ("van", "lorry", "bus"):
        build.both(quad(half * 0.80, half * 0.96, sill + 0.25, sill + 0.75), "tail", 1)
        build.add(quad(-0.26, 0.26, sill + 0.22, sill + 0.34), "plate rear", 1)
        if kind == "bus":
            build.add(quad(-half * 0.8, half * 0.8, 2.75, 3.7), "glass", 1)
            build.add(quad(-half * 0.75, half * 0.75, 1.5, 2.2), "glass", 1)
        elif kind == "van":
            build.both(quad(0.08, half * 0.8, 1.25, 1.8), "glass", 1)
        build.add(quad(-0.012, 0.012, sill + 0.2, roof - 0.1), "seam", 1)
        return
    build.both(quad(half * 0.70, half * 0.985, shoulder - 0.20, shoulder + 0.02), "tail", 1)
    build.both(quad(half * 0.73, half * 0.95, shoulder - 0.08, shoulder - 0.03, 0.003), "tail pale", 2)
    build.add(quad(-0.27, 0.27, sill + 0.19, sill + 0.31), "plate rear", 1)
    build.add(quad(-0.22, 0.22, sill + 0.225, sill + 0.275, 0.003), "seam", 2)


def _front_details(build: _Builder, kind: str) -> None:
    y0, sill, shoulder, _, half = BODIES[kind][-1]
    y = y0 + 0.02

    def quad(x0: float, x1: float, low: float, high: float, out: float = 0.0) -> list[tuple[float, float, float]]:
        return [(y + out, x0, high), (y + out, x1, high), (y + out, x1, low), (y + out, x0, low)]

    build.add(quad(-half * 0.98, half * 0.98, sill - 0.04, sill + 0.12), "bumper", 1)
    build.add(quad(-half * 0.9, half * 0.9, sill - 0.16, sill - 0.02), "under", 1)
    if kind == "bus":
        build.add(quad(-half * 0.9, half * 0.9, 2.7, 3.8), "glass", 1)
        build.add(quad(-half * 0.9, half * 0.9, 1.2, 2.3), "glass", 1)
        build.add(quad(-half * 0.5, half * 0.5, 2.4, 2.62), "seam", 1)
    if kind == "lorry":
        build.add([(2.95, -0.95, 2.3), (2.95, 0.95, 2.3), (3.32, 0.98, 1.38), (3.32, -0.98, 1.38)], "glass", 1)
    high = shoulder if kind not in ("bus", "lorry") else sill + 0.5
    build.both(quad(half * 0.62, half * 0.98, high - 0.15, high + 0.0), "lamp", 1)
    build.add(quad(-half * 0.5, half * 0.5, high - 0.13, high - 0.02), "grille", 1)
    build.add(quad(-0.26, 0.26, sill + 0.08, sill + 0.19, 0.004), "plate front", 2)
