"""Where a scene's houses, trees, fences, posts and crossings stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import cutouts, street, walls
from .canvas import Canvas, Texture
from .ground import Shade
from .plan import Label
from .street import House
from .world import BLOCK_M, Item, World, cast, put, put_shaded


def standing(world: World, travel: float) -> list[Item]:
    """Everything in sight that stands still."""
    items = _crossings(world, travel) + _median(world, travel)
    for side in (-1, 1):
        items += _houses(world, side, travel) + _trees(world, side, travel) + _fences(world, side, travel)
        items += _posts(world, side, travel) + _clutter(world, side, travel)
    return items


# houses


def _houses(world: World, side: int, travel: float) -> list[Item]:
    items = []
    for slot in world.slots(travel, BLOCK_M, back=BLOCK_M):
        for house in world.kept(("block", side, slot), _block, world, side, slot):
            if house.end_m > travel + 0.5:
                items.append(_house_item(world, house, travel))
    return items


def _house_item(world: World, house: House, travel: float) -> Item:
    light = world.scene.light
    shadow = None
    if light.shadow > 0.05:
        shadow = cast(Shade.block, house.footprint, house.height_m + 0.6 * house.rise_m, 255)
    order = world.order(house.end_m, house.side * house.wall_m, travel)
    return Item(order, put(street.paint_house, light, house), None, shadow)


def _block(world: World, side: int, slot: int) -> list[House]:
    """The houses of 40 m of street."""
    scene, rng = world.scene, world.rng("block", side, slot)
    plan = scene.street
    houses, at = [], slot * BLOCK_M
    end = at + BLOCK_M
    town = scene.style == "town"
    while at < end - 4.5:
        width = float(min(rng.uniform(5.5, 12) if town else rng.uniform(8, 13), end - at))
        if rng.random() < plan.gaps:
            at += float(rng.uniform(3, 7)) if scene.style in ("town", "suburb") else float(rng.uniform(14, 34))
            continue
        storeys = (
            int(rng.integers(plan.storeys[0], plan.storeys[1] + 1))
            if town
            else int(np.clip(rng.integers(2, 4), 2, plan.storeys[1]))
        )
        shop = town and rng.random() < 0.62
        wall = plan.wall(side) + (float(rng.uniform(0, 1.5)) if not town else float(rng.choice([0.0, 0.0, 0.0, 0.35])))
        pitched = not town or (storeys < 4 and rng.random() < 0.8)
        houses.append(
            street.build_house(
                rng,
                scene.light,
                side=side,
                start_m=at,
                width_m=width,
                wall_m=wall,
                storeys=storeys,
                shop=shop,
                pitched=bool(pitched),
                mirrored=scene.mirrored,
            )
        )
        at += width + (0.0 if town else float(rng.uniform(2.5, 6)))
    return houses


# plants


def _trees(world: World, side: int, travel: float) -> list[Item]:
    plan, style = world.scene.street, world.scene.style
    rows = {
        # pitch, from u, to u, share, least and most height
        "town": ((17.0, plan.kerb(side) + 0.8, plan.kerb(side) + 0.9, plan.greenery * 0.55, 5.5, 8.0),
                 (15.0, plan.wall(side) + 10, plan.wall(side) + 16, plan.greenery, 8.0, 12.0)),
        "suburb": ((12.0, plan.front(side) + 0.9, plan.front(side) + 2.2, plan.greenery * 0.75, 4.0, 8.0),
                   (9.0, plan.wall(side) + 9, plan.wall(side) + 15, plan.greenery, 7.0, 11.0)),
        "country": ((9.0, plan.front(side) + 1.5, plan.front(side) + 6, plan.greenery * 0.8, 4.5, 10.0),
                    (6.0, plan.front(side) + 9, plan.front(side) + 20, plan.greenery, 5.0, 10.0)),
        "highway": ((7.0, plan.front(side) + 4, plan.front(side) + 9, plan.greenery * 0.8, 4.0, 9.0),
                    (6.0, plan.front(side) + 10, plan.front(side) + 20, plan.greenery, 6.0, 11.0)),
    }[style]  # fmt: skip
    items = []
    for k, (pitch, low, high, share, small, tall) in enumerate(rows):
        for slot in world.slots(travel, pitch):
            drawn = world.kept(("tree", k, side, slot), world.dice, 6, f"tree{k}", side, slot)
            if drawn[0] < share:
                foot = ((slot + 0.15 + 0.7 * drawn[1]) * pitch, side * (low + (high - low) * drawn[2]))
                items.append(_tree_item(world, foot, small + (tall - small) * drawn[3], drawn, travel))
    return items


def _tree_item(world: World, foot: tuple[float, float], height: float, drawn: np.ndarray, travel: float) -> Item:
    texture: Texture = world.trees[int(drawn[4] * len(world.trees))]
    width = height * (0.85 + 0.25 * drawn[5])
    flip = drawn[5] > 0.5
    shadow = None
    if world.scene.light.shadow > 0.05 and foot[0] - travel < 70:
        shadow = cast(Shade.cutout, texture, foot, width, height, 225)
    draw = put(street.paint_cutout, texture, foot, width, height, Label.TREE, flip=flip)
    return Item(world.order(*foot, travel), draw, None, shadow)


# fences


def _fences(world: World, side: int, travel: float) -> list[Item]:
    style, pitch = world.scene.style, 4.0
    items = []
    for slot in world.slots(travel, pitch, ahead=110):
        group = slot // (6 if style == "town" else 4)
        kind, at = world.kept(("fence", side, group), _fence_kind, world, side, group)
        if kind:
            items.append(_fence_item(world, kind, side, group, (slot * pitch, (slot + 1) * pitch), at, travel))
    return items


def _fence_kind(world: World, side: int, group: int) -> tuple[str, float]:
    plan, style = world.scene.street, world.scene.style
    rng = world.rng("fence", side, group)
    if rng.random() > plan.fences:
        return "", 0.0
    if style == "town":
        return "railing", plan.kerb(side) + 0.32
    if style == "suburb":
        return str(rng.choice(["boards", "hedge", "railing", "wall", "boards"])), plan.front(side) + 0.12
    if style == "country":
        return str(rng.choice(["rails", "rails", "hedge"])), plan.front(side) + 0.5
    return "barrier", plan.kerb(side) + 0.5


FENCE_HEIGHT_M = {"railing": 1.05, "boards": 1.6, "hedge": 1.5, "rails": 1.15, "barrier": 0.8, "wall": 0.85}


def _fence_texture(world: World, kind: str, side: int, variant: int) -> Texture:
    rng, light = world.rng(kind, side, variant), world.scene.light
    if kind == "railing":
        return cutouts.railing(rng, light, side=side)
    if kind == "boards":
        return cutouts.boards(rng, light, side=side)
    if kind == "hedge":
        return cutouts.hedge(rng, light, side=side)
    if kind == "wall":
        return walls.plain_wall(rng, light, walls.BRICKS[variant], bricks=True, width=4, height=0.9)
    return cutouts.rails(rng, light, side=side, steel=kind == "barrier")


def _fence_item(
    world: World, kind: str, side: int, group: int, span: tuple[float, float], at: float, travel: float
) -> Item:
    texture = world.kept(("fence", kind, side, group % 5), _fence_texture, world, kind, side, group % 5)
    high, u = FENCE_HEIGHT_M[kind], side * at
    label = {"hedge": Label.TREE, "wall": Label.BUILDING}.get(kind, Label.FENCE)
    shadow = None
    if world.scene.light.shadow > 0.05:
        foot = np.array([[span[0], u], [span[1], u]])
        shadow = cast(Shade.block, foot, high, 150 if kind in ("railing", "rails") else 235)
    draw = put(street.paint_fence, texture, side, span, u, high, label)
    return Item(world.order(span[1], u, travel), draw, None, shadow)


def _median(world: World, travel: float) -> list[Item]:
    if not world.scene.street.median_m:
        return []
    return [
        _fence_item(world, "barrier", 1, 0, (slot * 4.0, slot * 4.0 + 4.0), 0.0, travel)
        for slot in world.slots(travel, 4.0, ahead=120)
    ]


# posts and signs


def _posts(world: World, side: int, travel: float) -> list[Item]:
    scene, plan = world.scene, world.scene.street
    light, items = scene.light, []
    edge = side * (plan.kerb(side) + (0.45 if plan.pavement_m else 1.2))
    tall = 6.5 if scene.style in ("town", "suburb") else 9.0
    colour = street.DARK_STEEL if scene.seed % 2 else street.STEEL
    if scene.style != "country":
        for slot in world.slots(travel, 27.0):
            foot = (slot * 27.0 + (13.5 if side > 0 else 4.0), edge)
            draw = put(street.paint_lamp, light, foot, side, tall, colour)
            items.append(Item(world.order(*foot, travel), draw, foot, _thin_shadow(world, foot, tall, 0.12)))
    for slot in world.slots(travel, 17.0, ahead=130):
        drawn = world.kept(("sign", side, slot), _sign, world, side, slot)
        if drawn:
            faces, high, shift = drawn
            foot = ((slot + shift) * 17.0, edge + side * 0.1)
            draw = put(street.paint_sign_post, light, foot, faces, high)
            items.append(Item(world.order(*foot, travel), draw, foot, _thin_shadow(world, foot, high, 0.1)))
    return items + _hanging(world, side, travel)


def _sign(world: World, side: int, slot: int) -> tuple[tuple[tuple[Texture, float, float], ...], float, float] | None:
    """Its faces (with width and height in metres), their height above the ground in metres, its place in the slot."""
    rng, light = world.rng("sign", side, slot), world.scene.light
    if rng.random() > (0.85 if world.scene.style in ("town", "highway") else 0.6):
        return None
    kind = str(rng.choice(cutouts.SIGN_KINDS[:6]))
    size = 1.5 if world.scene.style == "highway" else 1.0
    width, tall = (1.6, 1.1) if kind == "directions" else (0.78, 0.78)
    faces = [(cutouts.sign(rng, light, kind, mirrored=world.scene.mirrored), width * size, tall * size)]
    if kind != "directions" and rng.random() < 0.35:
        faces.append((cutouts.sign(rng, light, "directions", mirrored=world.scene.mirrored), 0.6 * size, 0.35 * size))
    return tuple(faces), float(rng.uniform(2.5, 3.1)) * size, float(rng.uniform(0.1, 0.9))


def _hanging(world: World, side: int, travel: float) -> list[Item]:
    """Shop signs that hang out from the walls."""
    if world.scene.style != "town":
        return []
    plan, items = world.scene.street, []
    for slot in world.slots(travel, 13.0, ahead=90):
        rng_face = world.kept(("hang", side, slot), _hanging_face, world, side, slot)
        if rng_face is None:
            continue
        face, s = rng_face
        far, near = side * plan.wall(side), side * (plan.wall(side) - 0.85)
        left, right = min(far, near), max(far, near)
        corners = np.array([[s, left, 4.1], [s, right, 4.1], [s, right, 3.25], [s, left, 3.25]])
        draw = put(Canvas.panel, face, corners, Label.SIGN)
        items.append(Item(world.order(s, near, travel), draw))
    return items


def _hanging_face(world: World, side: int, slot: int) -> tuple[Texture, float] | None:
    rng = world.rng("hang", side, slot)
    at = (slot + float(rng.uniform(0.2, 0.8))) * 13.0
    inside = any(
        h.start_m < at < h.end_m
        for h in world.kept(("block", side, int(at // BLOCK_M)), _block, world, side, int(at // BLOCK_M))
    )
    return (
        (cutouts.sign(rng, world.scene.light, "shop", mirrored=world.scene.mirrored), at)
        if inside and rng.random() < 0.6
        else None
    )


def _thin_shadow(world: World, foot: tuple[float, float], high: float, wide: float) -> Callable[[Shade], None] | None:
    if world.scene.light.shadow <= 0.05:
        return None
    base = np.array([[foot[0], foot[1] - wide / 2], [foot[0], foot[1] + wide / 2], [foot[0] + wide, foot[1]]])
    return cast(Shade.block, base, high, 200)


def _clutter(world: World, side: int, travel: float) -> list[Item]:
    """Bins, bollards and cones."""
    plan, light = world.scene.street, world.scene.light
    items: list[Item] = []
    if not plan.pavement_m:
        return items
    for slot in world.slots(travel, 8.0, ahead=70):
        drawn = world.kept(("clutter", side, slot), world.dice, 4, "clutter", side, slot)
        s = (slot + drawn[1]) * 8.0
        if drawn[0] < 0.09:
            foot = (s, side * (plan.front(side) - 0.5))
            colour = ((52, 84, 46), (60, 60, 58), (120, 72, 40))[int(drawn[2] * 3)]
            draw = put_shaded(street.paint_bin, light, foot, colour)
        elif drawn[0] < 0.2 and world.scene.style == "town":
            foot = (s, side * (plan.kerb(side) + 0.4))
            draw = put(street.paint_bollard, light, foot)
        elif drawn[0] < 0.24:
            foot = (s, side * (plan.kerb(side) - 0.3))
            draw = put(street.paint_cone, light, foot)
        else:
            continue
        items.append(Item(world.order(*foot, travel), draw, foot, _thin_shadow(world, foot, 1.0, 0.5)))
    return items


# crossings


def _crossings(world: World, travel: float) -> list[Item]:
    """Zebra crossings with beacons, and stop lines with traffic lights."""
    if world.scene.style not in ("town", "suburb"):
        return []
    items = []
    for slot in world.slots(travel, 62.0, ahead=120):
        drawn = world.kept(("cross", slot), world.dice, 2, "cross", 0, slot)
        s = (slot + 0.3 + 0.4 * drawn[1]) * 62.0
        if drawn[0] < 0.38:
            items += _zebra(world, s, travel)
        elif drawn[0] < 0.75:
            items += _signals(world, s, travel)
    return items


def _marks(world: World, marks: list[np.ndarray]) -> Item:
    light = world.scene.light
    middle = marks[0].mean(axis=0)

    def draw(canvas: Canvas, gain: float) -> None:
        for mark in marks:
            street.paint_road_mark(canvas, light, mark)

    return Item(1e6, draw, (float(middle[0]), float(middle[1])))


def _zebra(world: World, s: float, travel: float) -> list[Item]:
    plan, light = world.scene.street, world.scene.light
    left, right = -plan.kerb(-1) + 0.25, plan.kerb(1) - 0.25
    marks = []
    for u in np.arange(left, right - 0.5, 1.1):
        marks.append(np.array([[s, u], [s, u + 0.55], [s + 2.6, u + 0.55], [s + 2.6, u]]))
    items = [_marks(world, marks)]
    for side, at in ((-1, s - 0.5), (1, s + 3.1)):
        foot = (at, side * (plan.kerb(side) + 0.5))
        draw = put(street.paint_beacon, light, foot)
        items.append(Item(world.order(*foot, travel), draw, foot, _thin_shadow(world, foot, 2.9, 0.12)))
    return items


def _signals(world: World, s: float, travel: float) -> list[Item]:
    plan, light = world.scene.street, world.scene.light
    left = -plan.kerb(-1) + 0.2
    items = [_marks(world, [np.array([[s, left], [s, -0.1], [s + 0.3, -0.1], [s + 0.3, left]])])]
    for side in (-1, 1):
        foot = (s + 0.6, side * (plan.kerb(side) + 0.45))
        draw = put(street.paint_traffic_light, light, foot)
        items.append(Item(world.order(*foot, travel), draw, foot, _thin_shadow(world, foot, 3.2, 0.2)))
    return items
