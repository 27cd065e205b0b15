"""Paints what stands along the scene renderer's street: houses, trees, fences, posts; and the camera car's own bonnet.

Knows a thing's place only from its caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import cutouts, walls
from .canvas import NEAR_M, Canvas, Colour, Texture, f32
from .plan import Label, Light


@dataclass(frozen=True, eq=False)
class House:
    """One building: its place along the street and its painted parts."""

    side: int
    start_m: float
    width_m: float
    height_m: float
    wall_m: float
    """Metres from the centre line to the front."""
    depth_m: float
    rise_m: float
    """Height of the roof above the eaves; 0 for a flat roof."""
    colour: Colour
    front: Texture
    end: Texture
    roof: Texture
    awning: Texture | None
    chimneys: tuple[float, ...]
    """Shares of the width."""

    @property
    def end_m(self) -> float:
        """Where it ends along the street."""
        return self.start_m + self.width_m

    @property
    def footprint(self) -> np.ndarray:
        """(4, 2) corners on the ground."""
        near, far = self.side * self.wall_m, self.side * (self.wall_m + self.depth_m)
        return np.array([[self.start_m, near], [self.end_m, near], [self.end_m, far], [self.start_m, far]])


def build_house(
    rng: np.random.Generator, light: Light, *, side: int, start_m: float, width_m: float, wall_m: float, storeys: int,
    shop: bool, pitched: bool, mirrored: bool,
) -> House:  # fmt: skip
    """Draw and paint a house."""
    front, colour, bricks = walls.house_front(
        rng, light, width=width_m, storeys=storeys, shop=shop, side=side, mirrored=mirrored
    )
    height = storeys * 3.0 + 0.9
    depth = float(rng.uniform(7.5, 11))
    rise = float(rng.uniform(0.26, 0.40) * depth) if pitched else 0.0
    return House(
        side=side, start_m=start_m, width_m=width_m, height_m=height, wall_m=wall_m, depth_m=depth, rise_m=rise,
        colour=colour,
        front=front, end=walls.plain_wall(rng, light, colour, bricks=bricks, width=depth, height=height),
        roof=walls.roof_tiles(rng, light, side=side),
        awning=cutouts.awning(rng, light) if shop and rng.random() < 0.3 else None,
        chimneys=tuple(float(v) for v in rng.choice([0.08, 0.5, 0.92], int(rng.integers(0, 3)), replace=False)),
    )  # fmt: skip


def paint_house(canvas: Canvas, light: Light, house: House) -> None:
    """Draw a house, its far parts first."""
    a, b, h = house.start_m, house.end_m, house.height_m
    near = house.side * house.wall_m
    back = house.side * (house.wall_m + house.depth_m)
    ridge = (near + back) / 2
    for share in house.chimneys:
        _chimney(canvas, light, house, a + share * house.width_m, ridge if house.rise_m else (near + ridge) / 2)
    sides = (near, back) if house.side > 0 else (back, near)
    canvas.panel(
        house.end, np.array([[a, sides[0], h], [a, sides[1], h], [a, sides[1], 0], [a, sides[0], 0]]), Label.BUILDING
    )
    left, right = (a, b) if house.side < 0 else (b, a)
    if house.rise_m:
        gable = light.lit(tuple(c * 0.95 for c in house.colour), (-1, 0, 0))
        canvas.polygon(np.array([[a, near, h], [a, ridge, h + house.rise_m], [a, back, h]]), gable, Label.BUILDING)
        eave = near - house.side * 0.35
        top, low = h + house.rise_m, h - 0.12
        canvas.panel(
            house.roof,
            np.array([[left, ridge, top], [right, ridge, top], [right, eave, low], [left, eave, low]]),
            Label.BUILDING,
        )
    canvas.panel(
        house.front, np.array([[left, near, h], [right, near, h], [right, near, 0], [left, near, 0]]), Label.BUILDING
    )
    if house.rise_m:
        edge = light.lit((214, 220, 222), (0, -house.side, 0))
        strip = np.array(
            [[left, eave, low + 0.02], [right, eave, low + 0.02], [right, eave, low - 0.16], [left, eave, low - 0.16]]
        )
        canvas.polygon(strip, edge, Label.BUILDING)
    if house.awning is not None:
        _awning(canvas, house, house.awning, near, (left, right))


def _awning(canvas: Canvas, house: House, cloth: Texture, near: float, ends: tuple[float, float]) -> None:
    """Draw the slope of the cloth, its hem along the street, and its open end towards the camera."""
    (left, right), out = ends, near - house.side * 1.0
    a = house.start_m
    under = tuple(c * 0.55 for c in cloth.mean)
    canvas.polygon(np.array([[a, near, 3.0], [a, out, 2.45], [a, out, 2.2], [a, near, 2.4]]), under, Label.BUILDING)
    canvas.panel(
        cloth,
        np.array([[left, near, 3.0], [right, near, 3.0], [right, out, 2.45], [left, out, 2.45]]),
        Label.BUILDING,
    )
    canvas.panel(
        cloth,
        np.array([[left, out, 2.45], [right, out, 2.45], [right, out, 2.2], [left, out, 2.2]]),
        Label.BUILDING,
    )


def paint_bonnet(canvas: Canvas, light: Light, share: float) -> None:
    """The camera car's own bonnet along the bottom edge, which belongs to no class; it mirrors the sky."""
    width, height = canvas.size
    x = np.linspace(-0.05, 1.05, 25)
    for k in range(6):
        top = 1 - share * (1 - 0.16 * k) * (1 - (1.7 * (x - 0.5)) ** 2 * 0.45)
        edge = np.stack([x * width, top * height], axis=1)
        corners = np.concatenate([edge, [[1.05 * width, 1.1 * height], [-0.05 * width, 1.1 * height]]])
        tone = f32(light.horizon) * (0.34 - 0.045 * k if k else 0.5) * f32(light.ambient)
        canvas.fill(corners, tuple(float(v) for v in tone), Label.UNLABELLED)


def _chimney(canvas: Canvas, light: Light, house: House, s: float, u: float) -> None:
    top = house.height_m + house.rise_m + 1.1
    brick: Colour = tuple(c * 0.9 for c in house.colour)
    paint_box(canvas, light, (s, u), (0.45, 0.55), (house.height_m * 0.8, top), brick, Label.BUILDING)
    for k in (-0.3, 0.0, 0.3):
        canvas.rod(
            np.array([[s, u + k, top], [s, u + k, top + 0.4]]),
            (0.1, 0.09),
            light.lit((70, 96, 150), (-0.7, 0, 0.3)),
            Label.BUILDING,
        )


def paint_box(
    canvas: Canvas, light: Light, at: tuple[float, float], half: tuple[float, float], heights: tuple[float, float],
    colour: Colour, label: int,
    *, gain: float = 1.0,
) -> None:  # fmt: skip
    """A box on street point (s, u): its flank, its near face, and its top if the camera is above it."""
    (s, u), (ls, lu), (low, high) = at, half, heights
    colour = tuple(c * gain for c in colour)
    flank = -1 if u > canvas.camera.offset_m else 1
    side = u + flank * lu
    canvas.polygon(
        np.array([[s - ls, side, low], [s + ls, side, low], [s + ls, side, high], [s - ls, side, high]]),
        light.lit(colour, (0, flank, 0)),
        label,
    )
    if high < canvas.camera.height_m:
        canvas.polygon(
            np.array([[s - ls, u - lu, high], [s - ls, u + lu, high], [s + ls, u + lu, high], [s + ls, u - lu, high]]),
            light.lit(colour, (0, 0, 1)),
            label,
        )
    canvas.polygon(
        np.array([[s - ls, u - lu, low], [s - ls, u + lu, low], [s - ls, u + lu, high], [s - ls, u - lu, high]]),
        light.lit(colour, (-1, 0, 0)),
        label,
    )


def paint_cutout(
    canvas: Canvas,
    texture: Texture,
    foot: tuple[float, float],
    width_m: float,
    height_m: float,
    label: int,
    *,
    flip: bool = False,
) -> None:
    """A flat picture that stands at street point (s, u) and faces the camera."""
    view = canvas.camera.view(np.array([[foot[0], foot[1], 0.0]]))[0]
    if view[2] < NEAR_M * 2:
        return
    half = width_m / 2 * (-1 if flip else 1)
    x, y, z = view
    quad = np.array([[x - half, y - height_m, z], [x + half, y - height_m, z], [x + half, y, z], [x - half, y, z]])
    canvas.view_panel(texture, quad, label)


def paint_fence(
    canvas: Canvas, texture: Texture, side: int, span: tuple[float, float], u: float, height_m: float, label: int
) -> None:
    """A length of fence along the street from span[0] to span[1], at `u`, its base on the ground."""
    left, right = span if side < 0 else span[::-1]
    canvas.panel(texture, np.array([[left, u, height_m], [right, u, height_m], [right, u, 0], [left, u, 0]]), label)


STEEL: Colour = (128, 130, 126)
DARK_STEEL: Colour = (62, 64, 62)


def paint_lamp(
    canvas: Canvas, light: Light, foot: tuple[float, float], side: int, height_m: float, colour: Colour
) -> None:
    """A street lamp that leans out over the road."""
    s, u = foot
    lit = light.lit(colour, (-0.8, 0, 0.4))
    reach = u - side * 1.5
    canvas.rod(np.array([[s, u, 0], [s, u, 1.2]]), (0.11, 0.10), lit, Label.POLE)
    canvas.rod(np.array([[s, u, 1.0], [s, u, height_m]]), (0.075, 0.05), lit, Label.POLE)
    canvas.rod(np.array([[s, u, height_m], [s, reach, height_m + 0.35]]), (0.05, 0.04), lit, Label.POLE)
    canvas.rod(
        np.array([[s, reach, height_m + 0.34], [s, reach - side * 0.55, height_m + 0.30]]),
        (0.09, 0.13),
        tuple(c * 1.2 for c in lit),
        Label.POLE,
    )


def paint_sign_post(
    canvas: Canvas,
    light: Light,
    foot: tuple[float, float],
    faces: tuple[tuple[Texture, float, float], ...],
    height_m: float,
) -> None:
    """A post with faces, each with its width and height in metres, from the top down."""
    s, u = foot
    canvas.rod(np.array([[s, u, 0], [s, u, height_m]]), (0.045, 0.045), light.lit(STEEL, (-0.8, 0, 0.4)), Label.POLE)
    top = height_m + 0.02
    for face, width, tall in faces:
        near = s - 0.06
        corners = np.array(
            [
                [near, u - width / 2, top],
                [near, u + width / 2, top],
                [near, u + width / 2, top - tall],
                [near, u - width / 2, top - tall],
            ]
        )
        canvas.panel(face, corners, Label.SIGN)
        top -= tall + 0.04


def paint_traffic_light(canvas: Canvas, light: Light, foot: tuple[float, float]) -> None:
    """A post with three lamps, the lowest lit: green, since the drive never stops."""
    s, u = foot
    canvas.rod(np.array([[s, u, 0], [s, u, 2.6]]), (0.07, 0.06), light.lit(DARK_STEEL, (-0.8, 0, 0.4)), Label.POLE)
    board = light.lit((34, 34, 34), (-1, 0, 0))
    edge = light.lit((220, 222, 222), (-1, 0, 0))
    for grow, colour in ((0.03, edge), (0.0, board)):
        w, low, high = 0.24 + grow, 2.15 - grow, 3.35 + grow
        canvas.polygon(
            np.array([[s, u - w, low], [s, u + w, low], [s, u + w, high], [s, u - w, high]]), colour, Label.SIGN
        )
    lamps: tuple[Colour, ...] = ((60, 50, 250), (60, 190, 255), (150, 250, 90))
    for k in range(3):
        glow = lamps[k] if k == 2 else tuple(c * 0.22 for c in lamps[k])
        centre = np.array([[s - 0.05, u, 3.12 - 0.37 * k]] * 2)
        canvas.rod(centre, (0.125, 0.125), glow, Label.SIGN)


def paint_beacon(canvas: Canvas, light: Light, foot: tuple[float, float]) -> None:
    """The black and white post and the amber globe at a zebra crossing."""
    s, u = foot
    for k in range(7):
        tone = light.lit((228, 230, 230) if k % 2 else (38, 38, 38), (-0.8, 0, 0.4))
        canvas.rod(np.array([[s, u, 0.38 * k], [s, u, 0.38 * (k + 1)]]), (0.06, 0.06), tone, Label.POLE)
    canvas.rod(np.array([[s, u, 2.85]] * 2), (0.2, 0.2), (40, 160, 250), Label.SIGN)
    canvas.rod(np.array([[s, u - 0.04, 2.9]] * 2), (0.1, 0.1), (120, 205, 255), Label.SIGN)


def paint_bollard(canvas: Canvas, light: Light, foot: tuple[float, float]) -> None:
    """A short iron post with a white band."""
    s, u = foot
    lit = light.lit((44, 44, 42), (-0.8, 0, 0.4))
    canvas.rod(np.array([[s, u, 0.0], [s, u, 0.95]]), (0.085, 0.075), lit, Label.POLE)
    canvas.rod(
        np.array([[s, u, 0.76], [s, u, 0.80]]), (0.085, 0.085), light.lit((220, 222, 222), (-0.8, 0, 0.4)), Label.POLE
    )


def paint_bin(canvas: Canvas, light: Light, foot: tuple[float, float], colour: Colour, gain: float) -> None:
    """A wheeled bin, which has no class."""
    paint_box(canvas, light, foot, (0.3, 0.29), (0.04, 0.98), colour, Label.UNLABELLED, gain=gain)
    lid = tuple(c * 0.8 for c in colour)
    paint_box(canvas, light, foot, (0.34, 0.32), (0.98, 1.08), lid, Label.UNLABELLED, gain=gain)


def paint_cone(canvas: Canvas, light: Light, foot: tuple[float, float]) -> None:
    """A traffic cone, which has no class."""
    s, u = foot
    orange, white = light.lit((30, 90, 238), (-0.8, 0, 0.4)), light.lit((226, 230, 230), (-0.8, 0, 0.4))
    paint_box(canvas, light, foot, (0.2, 0.2), (0.0, 0.06), (26, 80, 214), Label.UNLABELLED)
    canvas.rod(np.array([[s, u, 0.06], [s, u, 0.68]]), (0.16, 0.04), orange, Label.UNLABELLED)
    canvas.rod(np.array([[s, u, 0.34], [s, u, 0.44]]), (0.115, 0.095), white, Label.UNLABELLED)


def paint_road_mark(canvas: Canvas, light: Light, corners: np.ndarray) -> None:
    """Paint on the road: (N, 2) convex ground corners s, u."""
    points = np.concatenate([corners, np.zeros((len(corners), 1))], axis=1)
    canvas.polygon(points, light.lit((200, 206, 206), (0, 0, 1)), Label.ROAD)
