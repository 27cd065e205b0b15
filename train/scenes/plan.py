"""The plan of a scene before anything is painted: street, light, camera and picture, drawn from a seed.

Knows nothing of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .canvas import Bend, Colour, Lens

STYLES = ("town", "suburb", "country", "highway")
STYLE_SHARE = (0.58, 0.28, 0.08, 0.06)
KERB_M = 0.16


class Label(IntEnum):
    """The class ids of CamVid."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
    UNLABELLED = 11


@dataclass(frozen=True)
class Street:
    """The cross-section of the street, in metres, and how much stands and moves on it, as shares."""

    lane_m: float
    lanes: int
    """Lanes in each direction."""
    median_m: float
    parking_m: tuple[float, float]
    """Width of the parking strip on the left and on the right."""
    pavement_m: float
    verge_m: float
    """Grass between the kerb and the pavement."""
    setback_m: float
    """Pavement's outer edge to the fronts of the houses."""
    storeys: tuple[int, int]
    gaps: float
    greenery: float
    parked: float
    traffic: float
    people: float
    cycling: float
    fences: float
    yellow_lines: bool
    paved_front: bool

    def kerb(self, side: int) -> float:
        """Metres from the centre line to the kerb; `side` is -1 for the left, 1 for the right."""
        return self.median_m / 2 + self.lane_m * self.lanes + self.parking_m[side > 0]

    def front(self, side: int) -> float:
        """Metres from the centre line to the pavement's outer edge."""
        return self.kerb(side) + self.verge_m + self.pavement_m

    def wall(self, side: int) -> float:
        """Metres from the centre line to the fronts of the houses."""
        return self.front(side) + self.setback_m


@dataclass(frozen=True)
class Light:
    """The sky and its light. Gains multiply a paint's blue, green, red."""

    sky: str
    sun: tuple[float, float, float]
    """Unit vector towards the sun: along the street, to its right, up."""
    direct: Colour
    ambient: Colour
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    haze_m: float
    shadow: float
    """Darkness of cast shadows, 0..1."""

    def gain(self, normal: tuple[float, float, float]) -> np.ndarray:
        """(3,) float gain of a surface with this unit normal, given in the axes of `sun`."""
        facing = max(0.0, sum(a * b for a, b in zip(normal, self.sun, strict=True)))
        bounce = 0.85 + 0.15 * normal[2]
        return np.array(self.ambient) * bounce + np.array(self.direct) * facing

    def lit(self, colour: Colour, normal: tuple[float, float, float]) -> Colour:
        """The paint under this light."""
        return tuple(float(v) for v in np.clip(np.array(colour) * self.gain(normal), 0, 255))


@dataclass(frozen=True)
class Grade:
    """What the camera does to the picture."""

    gain: Colour
    gamma: float
    saturation: float
    blur_px: float
    """Standard deviation at a width of 480 pixels."""
    noise: float
    vignette: float
    bloom: float
    """How far a bright sky bleeds over what stands before it, 0..1."""


@dataclass(frozen=True)
class Scene:
    """One endless, unchanging street under one sky. `Scene.from_seed` draws one."""

    seed: int
    style: str
    street: Street
    light: Light
    lens: Lens
    bend: Bend
    grade: Grade
    speed_ms: float
    bonnet: float
    """Share of the image's height that the camera car's own bonnet hides at the bottom; 0 for none."""
    mirrored: bool
    """True where traffic keeps to the right."""
    autumn: float
    """0 for spring green, 1 for brown leaves; above 0.75 some trees are bare."""

    @classmethod
    def from_seed(cls, seed: int, *, style: str | None = None) -> Scene:
        """Draw a scene; `style` is one of `STYLES`, or None to draw that too."""
        if style is not None and style not in STYLES:
            raise ValueError(f"style must be one of {', '.join(STYLES)} or None, not {style!r}")
        rng = np.random.default_rng((seed, 0x5CE7E))
        drawn = str(rng.choice(STYLES, p=STYLE_SHARE))
        style = style or drawn
        street = _street(rng, style)
        return cls(
            seed=seed,
            style=style,
            street=street,
            light=_light(rng),
            lens=_lens(rng, street),
            bend=_bend(rng, style),
            grade=_grade(rng),
            speed_ms=float(rng.uniform(8, 11) if style in ("town", "suburb") else rng.uniform(11, 14)),
            bonnet=float(rng.uniform(0.03, 0.09)) if rng.random() < 0.45 else 0.0,
            mirrored=bool(rng.random() < 0.15),
            autumn=float(rng.random()),
        )


def _street(rng: np.random.Generator, style: str) -> Street:
    between = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    parking = lambda share: 2.1 if rng.random() < share else 0.0  # noqa: E731
    if style == "town":
        return Street(
            lane_m=between(3.0, 3.7), lanes=1, median_m=0.0, parking_m=(parking(0.35), parking(0.5)),
            pavement_m=between(2.2, 4.0), verge_m=0.0, setback_m=0.0, storeys=(2, int(rng.integers(3, 6))),
            gaps=between(0.05, 0.22), greenery=between(0.1, 0.5), parked=between(0.35, 0.85), traffic=between(0.3, 0.8),
            people=between(0.35, 0.95), cycling=between(0.4, 1.0), fences=between(0.08, 0.3),
            yellow_lines=bool(rng.random() < 0.6), paved_front=True,
        )  # fmt: skip
    if style == "suburb":
        return Street(
            lane_m=between(2.8, 3.4), lanes=1, median_m=0.0, parking_m=(parking(0.4), parking(0.6)),
            pavement_m=between(1.6, 2.4), verge_m=float(rng.choice([0.0, 1.4])), setback_m=between(2.5, 6.5),
            storeys=(1, 2), gaps=between(0.25, 0.5), greenery=between(0.45, 0.9), parked=between(0.3, 0.7),
            traffic=between(0.2, 0.6), people=between(0.15, 0.45), cycling=between(0.2, 0.6), fences=between(0.5, 0.9),
            yellow_lines=False, paved_front=False,
        )  # fmt: skip
    if style == "country":
        return Street(
            lane_m=between(2.9, 3.5), lanes=1, median_m=0.0, parking_m=(0.0, 0.0), pavement_m=0.0,
            verge_m=between(1.0, 2.2),
            setback_m=between(8, 13), storeys=(1, 2), gaps=between(0.7, 0.9), greenery=between(0.7, 1.0), parked=0.0,
            traffic=between(0.2, 0.6), people=between(0.0, 0.15), cycling=between(0.15, 0.6), fences=between(0.6, 1.0),
            yellow_lines=False, paved_front=False,
        )  # fmt: skip
    return Street(
        lane_m=between(3.5, 3.75), lanes=2, median_m=between(1.6, 3.0), parking_m=(2.6, 2.6), pavement_m=0.0,
        verge_m=between(1.5, 3.0), setback_m=between(14, 20), storeys=(2, 4), gaps=between(0.7, 0.9),
        greenery=between(0.5, 0.9), parked=0.0, traffic=between(0.5, 0.9), people=0.0, cycling=0.0, fences=1.0,
        yellow_lines=False, paved_front=False,
    )  # fmt: skip


SKIES = {
    # share, direct, ambient, zenith, horizon, cloud, cover, haze in metres, shadow; colours blue, green, red
    "clear": (
        0.24, (0.52, 0.60, 0.66), (0.52, 0.47, 0.43), (204, 142, 82), (236, 218, 196), (252, 250, 248), 0.30, 430, 0.47,
    ),
    "bright": (
        0.22, (0.36, 0.40, 0.43), (0.62, 0.60, 0.57), (226, 190, 150), (244, 238, 230), (255, 253, 252), 0.55, 380,
        0.36,
    ),
    "white": (
        0.26, (0.07, 0.07, 0.07), (0.80, 0.80, 0.77), (240, 238, 234), (250, 249, 248), (255, 255, 255), 0.85, 260,
        0.12,
    ),
    "dark": (
        0.12, (0.10, 0.10, 0.10), (0.70, 0.68, 0.64), (150, 138, 126), (206, 202, 196), (132, 124, 118), 0.75, 300,
        0.10,
    ),
    "evening": (
        0.16, (0.34, 0.52, 0.74), (0.54, 0.46, 0.44), (186, 140, 104), (166, 196, 238), (190, 206, 246), 0.45, 330,
        0.42,
    ),
}  # fmt: skip


def _light(rng: np.random.Generator) -> Light:
    names = tuple(SKIES)
    sky = str(rng.choice(names, p=[SKIES[name][0] for name in names]))
    _, direct, ambient, zenith, horizon, cloud, cover, haze_m, shadow = SKIES[sky]
    bearing = rng.uniform(0, 2 * np.pi)
    height = np.deg2rad(rng.uniform(14, 26) if sky == "evening" else rng.uniform(28, 58))
    sun = (np.cos(height) * np.cos(bearing), np.cos(height) * np.sin(bearing), np.sin(height))
    tone = rng.uniform(0.88, 1.1)
    scale = lambda colour, by: tuple(float(min(255.0, c * by)) for c in colour)  # noqa: E731
    return Light(
        sky=sky, sun=(float(sun[0]), float(sun[1]), float(sun[2])), direct=scale(direct, tone),
        ambient=scale(ambient, tone),
        zenith=scale(zenith, rng.uniform(0.92, 1.06)), horizon=scale(horizon, rng.uniform(0.96, 1.02)), cloud=cloud,
        cover=float(np.clip(cover + rng.uniform(-0.2, 0.2), 0, 1)), haze_m=float(haze_m * rng.uniform(0.6, 1.4)),
        shadow=shadow,
    )  # fmt: skip


def _lens(rng: np.random.Generator, street: Street) -> Lens:
    lane = street.median_m / 2 + street.lane_m / 2
    return Lens(
        focal=float(rng.uniform(0.72, 1.08)),
        horizon=float(rng.uniform(0.42, 0.55)),
        roll=float(rng.normal(0, 0.006)),
        height_m=float(rng.uniform(1.2, 1.65)),
        offset_m=-lane + float(rng.normal(0, 0.15)),
    )


def _bend(rng: np.random.Generator, style: str) -> Bend:
    most = {"town": 4.0, "suburb": 6.0, "country": 9.0, "highway": 4.0}[style]
    return Bend(
        amplitude_m=(float(rng.uniform(0, most)), float(rng.uniform(0, 0.25 * most))),
        wave=(2 * np.pi / float(rng.uniform(240, 330)), 2 * np.pi / float(rng.uniform(120, 170))),
        phase=(float(rng.uniform(0, 6.28)), float(rng.uniform(0, 6.28))),
    )


def _grade(rng: np.random.Generator) -> Grade:
    """Half the draws look like CamVid's own camera: dull, soft and a little green."""
    camvid = rng.random() < 0.5
    cast = (0.98, 1.03, 0.97) if camvid else tuple(float(v) for v in rng.normal(1, 0.025, 3))
    bright = float(rng.uniform(0.88, 1.16) if camvid else rng.uniform(1.0, 1.18))
    return Grade(
        gain=tuple(c * bright for c in cast),
        gamma=float(rng.uniform(0.95, 1.3) if camvid else rng.uniform(0.85, 1.05)),
        saturation=float(rng.uniform(0.6, 0.9) if camvid else rng.uniform(0.95, 1.2)),
        blur_px=float(rng.uniform(0.3, 0.8) if camvid else rng.uniform(0, 0.4)),
        noise=float(rng.uniform(1.0, 4.0)),
        vignette=float(rng.uniform(0.05, 0.25)),
        bloom=float(rng.uniform(0.1, 0.5)),
    )
