"""Walkers and riders of the scene renderer: jointed figures whose limbs swing with the distance they have gone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import NEAR_M, SHIFT_BITS, Canvas, Colour, fixed_point
from .plan import Label, Light

COATS: tuple[Colour, ...] = (
    (40, 36, 34), (92, 54, 36), (46, 44, 150), (66, 96, 54), (120, 124, 128), (52, 128, 196), (120, 60, 96),
    (170, 176, 180),
    (150, 110, 50), (60, 70, 96), (34, 34, 110),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = ((58, 44, 36), (96, 66, 46), (40, 40, 42), (86, 98, 108), (62, 60, 56))
SKINS: tuple[Colour, ...] = ((150, 178, 222), (120, 152, 204), (76, 104, 152), (52, 72, 108))
HAIR: tuple[Colour, ...] = ((28, 32, 40), (40, 60, 90), (86, 130, 168), (150, 152, 154))


@dataclass(frozen=True)
class Person:
    """A person's looks."""

    height: float
    """Share of 1.75 m."""
    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    bag: bool
    skirt: bool
    helmet: Colour


def draw_person(rng: np.random.Generator) -> Person:
    """A random person, rarely a child."""
    pick = lambda paints: paints[int(rng.integers(len(paints)))]  # noqa: E731
    return Person(
        height=float(rng.uniform(0.62, 0.8) if rng.random() < 0.1 else rng.uniform(0.9, 1.06)),
        coat=pick(COATS),
        trousers=pick(TROUSERS),
        skin=pick(SKINS),
        hair=pick(HAIR),
        bag=bool(rng.random() < 0.4),
        skirt=bool(rng.random() < 0.22),
        helmet=pick(((230, 232, 232), (40, 40, 190), (44, 44, 44), (40, 190, 210))),
    )


class _Figure:
    """Joints put in the street, then projected all at once; limbs are drawn from the farthest to the nearest."""

    def __init__(
        self,
        canvas: Canvas,
        at: tuple[float, float],
        heading: tuple[float, float],
        *,
        size: float,
        tone: np.ndarray,
        label: int,
    ) -> None:
        self.canvas, self.label, self.size, self.tone = canvas, label, size, tone
        self.origin = np.array([at[0], at[1], 0.0])
        self.axes = np.array([(heading[0], heading[1], 0.0), (-heading[1], heading[0], 0.0), (0.0, 0.0, 1.0)])

    def place(self, joints: dict[str, tuple[float, float, float]]) -> bool:
        """Joints in metres forward, to the right and up; False if any is behind the camera."""
        local = np.array(list(joints.values())) * self.size
        view = self.canvas.camera.view(local @ self.axes + self.origin)
        if view[:, 2].min() < NEAR_M:
            return False
        self.pixels = dict(zip(joints, self.canvas.camera.pixels(view), strict=True))
        self.depths = dict(zip(joints, view[:, 2], strict=True))
        self.depth = float(view[:, 2].mean())
        self.scale = self.canvas.camera.focal_px / self.depth * self.size
        self.share = self.canvas.haze_share(self.depth)
        return True

    def lit(self, colour: Colour) -> Colour:
        return tuple(float(v) for v in np.minimum(np.array(colour) * self.tone, 255))

    def seen(self, colour: Colour, gain: float = 1.0) -> Colour:
        return tuple(
            min(255.0, c * gain) * (1 - self.share) + h * self.share
            for c, h in zip(colour, self.canvas.haze, strict=True)
        )

    def limb(self, a: str, b: str, radii: tuple[float, float], colour: Colour, gain: float = 1.0) -> None:
        ends = np.array([self.pixels[a], self.pixels[b]])
        thick = (max(0.45, radii[0] * self.scale), max(0.45, radii[1] * self.scale))
        self.canvas.capsule(ends, thick, self.seen(colour, gain), self.label)

    def hull(self, names: tuple[str, ...], colour: Colour) -> None:
        points = np.array([self.pixels[name] for name in names], np.float32)
        self.canvas.fill(cv2.convexHull(points)[:, 0], self.seen(colour), self.label)


def paint_walker(
    canvas: Canvas,
    light: Light,
    person: Person,
    at: tuple[float, float],
    heading: tuple[float, float],
    gone_m: float,
    *,
    gain: float = 1.0,
) -> None:
    """Draw a walker at street point (s, u) facing `heading`, a unit vector, after `gone_m` metres (0: standing)."""
    swing = np.sin(gone_m * 2 * np.pi / 1.5) if gone_m else 0.06
    stride, lift = 0.34 * swing, 0.09 * abs(np.cos(gone_m * np.pi * 2 / 1.5)) if gone_m else 0.0
    bob = 0.025 * (1 - abs(swing))
    joints = {
        "hip l": (0.0, -0.09, 0.90 + bob), "hip r": (0.0, 0.09, 0.90 + bob),
        "knee l": (stride * 0.6 + 0.05, -0.09, 0.48), "knee r": (-stride * 0.6 + 0.05, 0.09, 0.48),
        "foot l": (stride, -0.09, 0.06 + max(0.0, -swing) * lift),
        "foot r": (-stride, 0.09, 0.06 + max(0.0, swing) * lift),
        "toe l": (stride + 0.17, -0.10, 0.04), "toe r": (-stride + 0.17, 0.10, 0.04),
        "shoulder l": (0.02, -0.19, 1.43 + bob), "shoulder r": (0.02, 0.19, 1.43 + bob),
        "elbow l": (-0.14 * swing - 0.03, -0.25, 1.15), "elbow r": (0.14 * swing - 0.03, 0.25, 1.15),
        "hand l": (-0.30 * swing + 0.06, -0.24, 0.92), "hand r": (0.30 * swing + 0.06, 0.24, 0.92),
        "neck": (0.02, 0.0, 1.46 + bob), "head": (0.04, 0.0, 1.64 + bob), "crown": (-0.01, 0.0, 1.72 + bob),
        "hem l": (0.0, -0.22, 0.55), "hem r": (0.0, 0.22, 0.55), "waist l": (0.0, -0.15, 1.05),
        "waist r": (0.0, 0.15, 1.05),
        "pack": (-0.16, 0.0, 1.32), "pack low": (-0.18, 0.0, 1.08),
    }  # fmt: skip
    tone = light.gain((-0.7, 0, 0.5)) * gain
    figure = _Figure(canvas, at, heading, size=person.height, tone=tone, label=Label.PEDESTRIAN)
    if not figure.place(joints):
        return
    sides = sorted("lr", key=lambda side: -figure.depths[f"shoulder {side}"])
    _legs(figure, person, sides)
    for side in sides:
        if side == sides[1]:
            _trunk(figure, person, heading)
        figure.limb(f"shoulder {side}", f"elbow {side}", (0.07, 0.055), figure.lit(person.coat), 0.84)
        figure.limb(f"elbow {side}", f"hand {side}", (0.055, 0.045), figure.lit(person.coat), 0.9)
        figure.limb(f"hand {side}", f"hand {side}", (0.05, 0.05), figure.lit(person.skin))


def _legs(figure: _Figure, person: Person, sides: list[str]) -> None:
    for side, gain in zip(sides, (0.78, 1.0), strict=True):
        bare = person.skirt
        figure.limb(f"foot {side}", f"toe {side}", (0.055, 0.045), (34, 34, 36))
        colour = figure.lit((44, 42, 46) if bare else person.trousers)
        figure.limb(f"hip {side}", f"knee {side}", (0.10, 0.075), colour, gain)
        figure.limb(f"knee {side}", f"foot {side}", (0.07, 0.055), colour, gain)


def _trunk(figure: _Figure, person: Person, heading: tuple[float, float]) -> None:
    away = heading[0] > 0.3
    if person.bag and not away:
        figure.limb("pack", "pack low", (0.15, 0.16), figure.lit((52, 70, 60)))
    if person.skirt:
        figure.hull(("hip l", "hip r", "hem l", "hem r"), figure.lit(person.trousers))
    figure.limb("hip l", "hip r", (0.10, 0.10), figure.lit(person.coat), 0.86)
    figure.hull(("shoulder l", "shoulder r", "waist r", "waist l", "hip l", "hip r"), figure.lit(person.coat))
    figure.limb("shoulder l", "shoulder r", (0.07, 0.07), figure.lit(person.coat), 1.06)
    figure.limb("neck", "waist l", (0.10, 0.12), figure.lit(person.coat))
    figure.limb("neck", "waist r", (0.10, 0.12), figure.lit(person.coat), 0.93)
    figure.limb("neck", "head", (0.055, 0.06), figure.lit(person.skin), 0.85)
    figure.limb("head", "head", (0.105, 0.105), figure.lit(person.hair if away else person.skin))
    figure.limb("crown", "crown", (0.095, 0.095), figure.lit(person.hair))
    if person.bag and away:
        figure.limb("pack", "pack low", (0.15, 0.16), figure.lit((52, 70, 60)))


def paint_rider(
    canvas: Canvas,
    light: Light,
    person: Person,
    at: tuple[float, float],
    forward: int,
    gone_m: float,
    *,
    gain: float = 1.0,
) -> None:
    """Draw a cyclist at street point (s, u), riding with the camera (1) or towards it (-1)."""
    turn = gone_m / 0.34 / 2.6
    joints: dict[str, tuple[float, float, float]] = {
        "hip l": (-0.16, -0.10, 0.98), "hip r": (-0.16, 0.10, 0.98), "shoulder l": (0.24, -0.18, 1.42),
        "shoulder r": (0.24, 0.18, 1.42),
        "elbow l": (0.36, -0.25, 1.16), "elbow r": (0.36, 0.25, 1.16), "hand l": (0.50, -0.24, 1.02),
        "hand r": (0.50, 0.24, 1.02),
        "neck": (0.27, 0.0, 1.46), "head": (0.35, 0.0, 1.62), "crown": (0.32, 0.0, 1.68),
        "saddle": (-0.20, 0.0, 0.92), "crank": (0.0, 0.0, 0.30), "stem": (0.44, 0.0, 0.88), "bar": (0.48, 0.0, 1.02),
        "bar l": (0.48, -0.26, 1.02), "bar r": (0.48, 0.26, 1.02), "hub f": (0.53, 0.0, 0.34),
        "hub b": (-0.53, 0.0, 0.34),
        "pack": (-0.06, 0.0, 1.36), "pack low": (-0.16, 0.0, 1.12),
    }  # fmt: skip
    for side, lag in (("l", 0.0), ("r", np.pi)):
        x, z = 0.17 * np.cos(turn + lag), 0.30 - 0.17 * np.sin(turn + lag)
        lateral = -0.11 if side == "l" else 0.11
        joints[f"foot {side}"] = (x, lateral, z + 0.05)
        joints[f"toe {side}"] = (x + 0.15, lateral, z + 0.04)
        joints[f"knee {side}"] = (0.5 * (x - 0.16) + 0.24, lateral, 0.5 * (z + 1.0) + 0.06)
    for wheel in "fb":
        hub = joints[f"hub {wheel}"][0]
        for k, angle in enumerate(np.linspace(0, 2 * np.pi, 16, endpoint=False)):
            joints[f"{wheel}{k}"] = (hub + 0.33 * np.cos(angle), 0.0, 0.34 + 0.33 * np.sin(angle))
    tone = light.gain((-0.7, 0, 0.5)) * gain
    figure = _Figure(canvas, at, (float(forward), 0.0), size=1.0, tone=tone, label=Label.BICYCLIST)
    if not figure.place(joints):
        return
    _cycle(figure, person)
    _rider(figure, person, forward)


def _cycle(figure: _Figure, person: Person) -> None:
    """Draw the bicycle. CamVid's annotators label the wheels' gaps bicyclist, so the labels fill the discs."""
    canvas = figure.canvas
    for wheel in "bf":
        ring = np.array([figure.pixels[f"{wheel}{k}"] for k in range(16)])
        cv2.fillConvexPoly(canvas.labels, fixed_point(ring), int(figure.label), cv2.LINE_8, SHIFT_BITS)
        for k in range(16):
            figure.limb(f"{wheel}{k}", f"{wheel}{(k + 1) % 16}", (0.028, 0.028), (30, 30, 31))
        for k in range(0, 16, 4):
            figure.limb(f"hub {wheel}", f"{wheel}{k}", (0.006, 0.006), (120, 122, 122))
    paint = figure.lit(person.helmet if sum(person.helmet) < 500 else (60, 40, 160))
    for a, b in (
        ("saddle", "crank"),
        ("crank", "stem"),
        ("stem", "saddle"),
        ("hub b", "crank"),
        ("hub b", "saddle"),
        ("stem", "hub f"),
        ("stem", "bar"),
    ):
        figure.limb(a, b, (0.022, 0.022), paint)
    figure.limb("bar l", "bar r", (0.02, 0.02), (40, 40, 41))
    figure.limb("saddle", "saddle", (0.07, 0.07), (30, 30, 31))


def _rider(figure: _Figure, person: Person, forward: int) -> None:
    sides = sorted("lr", key=lambda side: -figure.depths[f"shoulder {side}"] - 1e-6 * (side == "l"))
    for side, gain in zip(sides, (0.8, 1.0), strict=True):
        figure.limb(f"foot {side}", f"toe {side}", (0.05, 0.04), (34, 34, 36))
        figure.limb(f"hip {side}", f"knee {side}", (0.10, 0.08), figure.lit(person.trousers), gain)
        figure.limb(f"knee {side}", f"foot {side}", (0.07, 0.05), figure.lit(person.trousers), gain)
    coat = figure.lit(person.coat)
    for side in sides:
        figure.limb(f"shoulder {side}", f"elbow {side}", (0.065, 0.05), coat, 0.85)
        figure.limb(f"elbow {side}", f"hand {side}", (0.05, 0.04), coat, 0.9)
    figure.limb("hip l", "hip r", (0.13, 0.13), coat, 0.85)
    figure.hull(("shoulder l", "shoulder r", "hip r", "hip l"), coat)
    figure.limb("neck", "hip l", (0.12, 0.13), coat)
    figure.limb("neck", "hip r", (0.12, 0.13), coat, 0.94)
    figure.limb("shoulder l", "shoulder r", (0.07, 0.07), coat, 1.05)
    if person.bag:
        figure.limb("pack", "pack low", (0.15, 0.15), figure.lit((46, 60, 52)))
    figure.limb("head", "head", (0.105, 0.105), figure.lit(person.hair if forward > 0 else person.skin))
    figure.limb("crown", "crown", (0.115, 0.115), figure.lit(person.helmet))
