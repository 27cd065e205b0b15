"""Procedural dashcam scenes with exact labels: a street that never ends, drawn from a seed.

`render` gives one frame and its class ids, `clip_frames` a drive. Classes are CamVid's twelve, by id: sky, building, pole,
road, pavement, tree, sign_symbol, fence, car, pedestrian, bicyclist, unlabelled. As CamVid's annotators do, lane markings
go to the road, grass and hedges to the tree, garden walls to the building, the gaps of a railing to the fence. Needs numpy
and OpenCV alone; knows nothing of Keras or of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np

from train import scene_paint as paint
from train import scene_street as street
from train.scene_canvas import Camera, Canvas, Texture
from train.scene_cars import Car, draw_car, paint_car
from train.scene_people import Person, draw_person, paint_rider, paint_walker
from train.scene_plan import STYLES, Label, Light, Scene
from train.scene_street import Ground, House, Shade

__all__ = ["SHOWCASE_SEED", "SHOWCASE_STYLE", "STYLES", "Label", "Scene", "clip_frames", "render"]

SHOWCASE_SEED = 7
SHOWCASE_STYLE = "town"

SUPER = 2
"""Samples a pixel, each way."""
FAR_M = 170.0
BACK_M = 12.0
BLOCK_M = 40.0
SIDEWAYS = 1.5
"""How much a metre to the side counts against a metre ahead when things are put in order.

A thing hides another only if it is both nearer and closer to the middle of the street, so any weight is right for small
things; this one also suits long walls, which are put in order by their far end.
"""


@dataclass(eq=False)
class Item:
    """Something to draw: its place in the order, how to draw it with a gain for shade, and the shadow it casts."""

    order: float
    draw: Callable[[Canvas, float], None]
    foot: tuple[float, float] | None = None
    shadow: Callable[[Shade], None] | None = None


def render(scene: Scene, *, time_s: float = 0.0, height: int = 360, width: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """One frame of the drive: (height, width, 3) uint8 BGR and (height, width) uint8 class ids.

    The same scene, time and size give the same bytes. `time_s` is seconds since the drive began.
    """
    if height < 64 or width < 64:
        raise ValueError(f"height and width must be at least 64, not {height} and {width}")
    world = _world(scene)
    travel = world.travel_m(time_s)
    high, wide = height * SUPER, width * SUPER
    nod = 0.0016 * np.sin(2.1 * time_s) + 0.0009 * np.sin(5.3 * time_s + 1)
    camera = Camera(scene.lens, scene.bend, travel_m=travel, nod=nod, height=high, width=wide)
    canvas = Canvas(camera, haze=scene.light.horizon, haze_m=scene.light.haze_m, height=high, width=wide)
    items = world.items(travel, time_s)
    shade = Shade(camera, scene.light, height=(high + 1) // 2, width=(wide + 1) // 2)
    _paint_backdrop(canvas, world, shade, items, time_s)
    gains = [1.0 if item.foot is None else 1.0 - 0.5 * scene.light.shadow * shade.at(item.foot) for item in items]
    for item, gain in sorted(zip(items, gains, strict=True), key=lambda pair: -pair[0].order):
        item.draw(canvas, gain)
    frame = cv2.resize(canvas.colour, (width, height), interpolation=cv2.INTER_AREA)
    labels = _vote(canvas.labels)
    frame = world.develop(frame, time_s)
    if scene.mirrored:
        frame, labels = frame[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(frame), np.ascontiguousarray(labels)


def clip_frames(
    scene: Scene, *, seconds: float, rate: int | Fraction = 25, height: int = 360, width: int = 480
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A drive of `seconds` at `rate` frames a second, as `render` gives them."""
    for index in range(int(seconds * rate)):
        yield render(scene, time_s=float(index / rate), height=height, width=width)


def _vote(labels: np.ndarray) -> np.ndarray:
    """The commonest id of each 2 by 2 samples; the first of equals, so ids are never mixed."""
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    return np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))


def _paint_backdrop(canvas: Canvas, world: World, shade: Shade, items: list[Item], time_s: float) -> None:
    """Sky, skyline, and the ground with every shadow on it."""
    light = world.scene.light
    street.paint_sky(canvas, world.sky, 0.004 * time_s)
    for ridge, height, colour, label in world.skylines:
        street.paint_skyline(canvas, ridge, height, colour, label)
    for item in items:
        if item.shadow is not None:
            item.shadow(shade)
    shade.mask = cv2.GaussianBlur(shade.mask, (0, 0), max(0.6, canvas.size[0] / 960))
    dark = 1 - light.shadow
    world.ground.aim(canvas.camera)
    world.ground.paint(canvas, shade.mask, (255 * min(1, dark * 1.08), 255 * dark, 255 * dark * 0.97))


class World:
    """A scene's things and paintings, made when first seen and kept for the next frame."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._kept: dict[tuple, object] = {}
        light = scene.light
        self.sky = paint.sky_panorama(self.rng("sky"), light)
        self.ground = Ground(scene, self.rng("ground"))
        self.skylines = self._skylines()
        bare = scene.autumn > 0.75
        rng = self.rng("trees")
        self.trees = [
            paint.bare_tree(rng, light) if bare and k % 2 else paint.leafy_tree(rng, light, scene.autumn) for k in range(7)
        ]
        self.noise = self.rng("noise").normal(0, 1, (256, 256, 3)).astype(np.float32)

    def rng(self, name: str, side: int = 0, slot: int = 0) -> np.random.Generator:
        """The generator of one slot: the same wherever the drive comes from."""
        tag = int.from_bytes(name.encode(), "little")
        return np.random.default_rng((self.scene.seed, tag, side + 1, slot + (1 << 20)))

    def kept(self, key: tuple, make: Callable[[], object]) -> object:
        """What `make` made for this key; the store is emptied when it has grown."""
        if key not in self._kept:
            if len(self._kept) > 3000:
                self._kept.clear()
            self._kept[key] = make()
        return self._kept[key]

    def travel_m(self, time_s: float) -> float:
        """Metres driven by then."""
        return self.scene.speed_ms * time_s + 40.0

    def slots(self, travel: float, pitch: float, ahead: float = FAR_M, back: float = BACK_M) -> range:
        """The numbers of the slots of that pitch in sight."""
        return range(int(np.floor((travel - back) / pitch)), int(np.ceil((travel + ahead) / pitch)))

    def _skylines(self) -> list[tuple[np.ndarray, float, tuple, int]]:
        """Hills, then trees, that close the view; paler the farther."""
        scene, rng = self.scene, self.rng("skyline")
        haze = np.float32(scene.light.horizon)
        wave = paint.noise(rng, 8, 1024, 20, octaves=4)[0]
        hills = np.clip(0.5 + 0.4 * cv2.resize(wave[None], (1024, 1))[0], 0.1, 1)
        tops = paint.noise(rng, 8, 1024, 160, octaves=3)[0]
        crowns = np.clip(0.55 + 0.3 * tops + 0.2 * np.roll(wave, 300), 0.15, 1)
        flat = np.array(scene.light.ambient) + 0.4 * np.array(scene.light.direct)
        mix = lambda paint_, share: tuple(float(v) for v in np.float32(paint_) * flat * (1 - share) + haze * share)  # noqa: E731
        return [
            (hills, 0.05, mix((120, 130, 110), 0.72), Label.TREE),
            (crowns, 0.038, mix((58, 92, 76), 0.5), Label.TREE),
        ]

    def items(self, travel: float, time_s: float) -> list[Item]:
        """Everything in sight."""
        items: list[Item] = []
        for side in (-1, 1):
            items += self._houses(side, travel) + self._trees(side, travel) + self._fences(side, travel)
            items += self._posts(side, travel) + self._clutter(side, travel) + self._parked(side, travel)
            items += self._walkers(side, travel, time_s) + self._riders(side, travel, time_s)
        items += self._traffic(travel, time_s) + self._crossings(travel, time_s) + self._median(travel)
        return [item for item in items if item is not None]

    def order(self, s: float, u: float, travel: float) -> float:
        """Larger for what is drawn sooner."""
        return s - travel + SIDEWAYS * abs(u - self.scene.lens.offset_m)

    # houses

    def _houses(self, side: int, travel: float) -> list[Item]:
        items = []
        for slot in self.slots(travel, BLOCK_M, back=BLOCK_M):
            for house in self.kept(("block", side, slot), lambda slot=slot: self._block(side, slot)):
                if house.end_m > travel + 0.5:
                    items.append(self._house_item(house, travel))
        return items

    def _house_item(self, house: House, travel: float) -> Item:
        light = self.scene.light
        shadow = None
        if light.shadow > 0.05:
            shadow = lambda shade: shade.block(house.footprint, house.height_m + 0.6 * house.rise_m, 255)  # noqa: E731
        order = self.order(house.end_m, house.side * house.wall_m, travel)
        return Item(order, lambda canvas, gain: street.paint_house(canvas, light, house), None, shadow)

    def _block(self, side: int, slot: int) -> list[House]:
        """The houses of 40 m of street."""
        scene, rng = self.scene, self.rng("block", side, slot)
        plan = scene.street
        houses, at = [], slot * BLOCK_M
        end = at + BLOCK_M
        town = scene.style == "town"
        while at < end - 4.5:
            width = float(min(rng.uniform(5.5, 12) if town else rng.uniform(8, 13), end - at))
            if rng.random() < plan.gaps:
                at += float(rng.uniform(3, 7)) if scene.style in ("town", "suburb") else float(rng.uniform(14, 34))
                continue
            storeys = int(rng.integers(plan.storeys[0], plan.storeys[1] + 1)) if town else int(np.clip(rng.integers(2, 4), 2, plan.storeys[1]))
            shop = town and rng.random() < 0.62
            wall = plan.wall(side) + (float(rng.uniform(0, 1.5)) if not town else float(rng.choice([0.0, 0.0, 0.0, 0.35])))
            pitched = not town or storeys < 4 and rng.random() < 0.8
            houses.append(
                street.build_house(
                    rng, scene.light, side=side, start_m=at, width_m=width, wall_m=wall, storeys=storeys, shop=shop, pitched=bool(pitched)
                )
            )
            at += width + (0.0 if town else float(rng.uniform(2.5, 6)))
        return houses

    # plants

    def _trees(self, side: int, travel: float) -> list[Item]:
        plan, style = self.scene.street, self.scene.style
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
            for slot in self.slots(travel, pitch):
                drawn = self.kept(("tree", k, side, slot), lambda k=k, slot=slot: self.rng(f"tree{k}", side, slot).random(6))
                if drawn[0] < share:
                    foot = ((slot + 0.15 + 0.7 * drawn[1]) * pitch, side * (low + (high - low) * drawn[2]))
                    items.append(self._tree_item(foot, small + (tall - small) * drawn[3], drawn, travel))
        return items

    def _tree_item(self, foot: tuple[float, float], height: float, drawn: np.ndarray, travel: float) -> Item:
        texture: Texture = self.trees[int(drawn[4] * len(self.trees))]
        width = height * (0.85 + 0.25 * drawn[5])
        flip = drawn[5] > 0.5
        shadow = None
        if self.scene.light.shadow > 0.05 and foot[0] - travel < 70:
            shadow = lambda shade: shade.cutout(texture, foot, width, height, 225)  # noqa: E731
        draw = lambda canvas, gain: street.paint_cutout(canvas, texture, foot, width, height, Label.TREE, flip=flip)  # noqa: E731
        return Item(self.order(*foot, travel), draw, None, shadow)

    # fences

    def _fences(self, side: int, travel: float) -> list[Item]:
        plan, style = self.scene.street, self.scene.style
        pitch = 4.0
        items = []
        for slot in self.slots(travel, pitch, ahead=110):
            group = slot // (6 if style == "town" else 4)
            kind, at = self.kept(("fence", side, group), lambda group=group: self._fence_kind(side, group))
            if kind:
                items.append(self._fence_item(kind, side, group, (slot * pitch, (slot + 1) * pitch), at, travel))
        return items

    def _fence_kind(self, side: int, group: int) -> tuple[str, float]:
        plan, style = self.scene.street, self.scene.style
        rng = self.rng("fence", side, group)
        if rng.random() > plan.fences:
            return "", 0.0
        if style == "town":
            return "railing", plan.kerb(side) + 0.32
        if style == "suburb":
            return str(rng.choice(["boards", "hedge", "railing", "wall", "boards"])), plan.front(side) + 0.12
        if style == "country":
            return str(rng.choice(["rails", "rails", "hedge"])), plan.front(side) + 0.5
        return "barrier", plan.kerb(side) + 0.5

    def _fence_item(self, kind: str, side: int, group: int, span: tuple[float, float], at: float, travel: float) -> Item:
        light, autumn = self.scene.light, self.scene.autumn
        make = {
            "railing": lambda rng: paint.railing(rng, light, side=side),
            "boards": lambda rng: paint.boards(rng, light, side=side),
            "hedge": lambda rng: paint.hedge(rng, light, autumn, side=side),
            "rails": lambda rng: paint.rails(rng, light, side=side, steel=False),
            "barrier": lambda rng: paint.rails(rng, light, side=side, steel=True),
            "wall": lambda rng: paint.plain_wall(rng, light, paint.BRICKS[group % len(paint.BRICKS)], bricks=True, width=4, height=0.9),
        }[kind]  # fmt: skip
        texture = self.kept(("fence", kind, side, group % 5), lambda: make(self.rng(kind, side, group % 5)))
        high = {"railing": 1.05, "boards": 1.6, "hedge": 1.5, "rails": 1.15, "barrier": 0.8, "wall": 0.85}[kind]
        label = {"hedge": Label.TREE, "wall": Label.BUILDING}.get(kind, Label.FENCE)
        u = side * at
        foot = np.array([[span[0], u], [span[1], u]])
        shadow = (lambda shade: shade.block(foot, high, 150 if kind in ("railing", "rails") else 235)) if light.shadow > 0.05 else None
        draw = lambda canvas, gain: street.paint_fence(canvas, texture, side, span, u, high, label)  # noqa: E731
        return Item(self.order(span[1], u, travel), draw, None, shadow)

    def _median(self, travel: float) -> list[Item]:
        if not self.scene.street.median_m:
            return []
        return [self._fence_item("barrier", 1, 0, (slot * 4.0, slot * 4.0 + 4.0), 0.0, travel) for slot in self.slots(travel, 4.0, ahead=120)]

    # posts and signs

    def _posts(self, side: int, travel: float) -> list[Item]:
        scene, plan = self.scene, self.scene.street
        light, items = scene.light, []
        edge = side * (plan.kerb(side) + (0.45 if plan.pavement_m else 1.2))
        tall = 6.5 if scene.style in ("town", "suburb") else 9.0
        colour = street.DARK_STEEL if scene.seed % 2 else street.STEEL
        if scene.style != "country":
            for slot in self.slots(travel, 27.0):
                foot = (slot * 27.0 + (13.5 if side > 0 else 4.0), edge)
                draw = lambda canvas, gain, foot=foot: street.paint_lamp(canvas, light, foot, side, tall, colour)  # noqa: E731
                items.append(Item(self.order(*foot, travel), draw, foot, self._thin_shadow(foot, tall, 0.12)))
        for slot in self.slots(travel, 21.0, ahead=130):
            drawn = self.kept(("sign", side, slot), lambda slot=slot: self._sign(side, slot))
            if drawn:
                faces, high, shift = drawn
                foot = ((slot + shift) * 21.0, edge + side * 0.1)
                draw = lambda canvas, gain, foot=foot, faces=faces, high=high: street.paint_sign_post(canvas, light, foot, faces, high)  # noqa: E731
                items.append(Item(self.order(*foot, travel), draw, foot, self._thin_shadow(foot, high, 0.1)))
        return items + self._hanging(side, travel)

    def _sign(self, side: int, slot: int) -> tuple | None:
        rng, light = self.rng("sign", side, slot), self.scene.light
        if rng.random() > (0.55 if self.scene.style in ("town", "highway") else 0.35):
            return None
        kind = str(rng.choice(paint.SIGN_KINDS[:6]))
        size = 1.5 if self.scene.style == "highway" else 1.0
        width, tall = (1.5, 1.0) if kind == "directions" else (0.68, 0.68)
        faces = [(paint.sign(rng, light, kind), width * size, tall * size)]
        if kind != "directions" and rng.random() < 0.35:
            faces.append((paint.sign(rng, light, "directions"), 0.6 * size, 0.35 * size))
        return tuple(faces), float(rng.uniform(2.5, 3.1)) * size, float(rng.uniform(0.1, 0.9))

    def _hanging(self, side: int, travel: float) -> list[Item]:
        """Shop signs that hang out from the walls."""
        if self.scene.style != "town":
            return []
        plan, light, items = self.scene.street, self.scene.light, []
        for slot in self.slots(travel, 13.0, ahead=90):
            rng_face = self.kept(("hang", side, slot), lambda slot=slot: self._hanging_face(side, slot))
            if rng_face is None:
                continue
            face, s = rng_face
            far, near = side * plan.wall(side), side * (plan.wall(side) - 0.85)
            left, right = min(far, near), max(far, near)
            corners = np.array([[s, left, 4.1], [s, right, 4.1], [s, right, 3.25], [s, left, 3.25]])
            draw = lambda canvas, gain, face=face, corners=corners: canvas.panel(face, corners, Label.SIGN)  # noqa: E731
            items.append(Item(self.order(s, near, travel), draw))
        return items

    def _hanging_face(self, side: int, slot: int) -> tuple[Texture, float] | None:
        rng = self.rng("hang", side, slot)
        at = (slot + float(rng.uniform(0.2, 0.8))) * 13.0
        inside = any(h.start_m < at < h.end_m for h in self.kept(("block", side, int(at // BLOCK_M)), lambda: self._block(side, int(at // BLOCK_M))))
        return (paint.sign(rng, self.scene.light, "shop"), at) if inside and rng.random() < 0.6 else None

    def _thin_shadow(self, foot: tuple[float, float], high: float, wide: float) -> Callable[[Shade], None] | None:
        if self.scene.light.shadow <= 0.05:
            return None
        base = np.array([[foot[0], foot[1] - wide / 2], [foot[0], foot[1] + wide / 2], [foot[0] + wide, foot[1]]])
        return lambda shade: shade.block(base, high, 200)

    def _clutter(self, side: int, travel: float) -> list[Item]:
        """Bins, bollards and cones."""
        plan, light, items = self.scene.street, self.scene.light, []
        if not plan.pavement_m:
            return items
        for slot in self.slots(travel, 8.0, ahead=70):
            drawn = self.kept(("clutter", side, slot), lambda slot=slot: self.rng("clutter", side, slot).random(4))
            s = (slot + drawn[1]) * 8.0
            if drawn[0] < 0.09:
                foot = (s, side * (plan.front(side) - 0.5))
                colour = ((52, 84, 46), (60, 60, 58), (120, 72, 40))[int(drawn[2] * 3)]
                draw = lambda canvas, gain, foot=foot, colour=colour: street.paint_bin(canvas, light, foot, colour, gain)  # noqa: E731
            elif drawn[0] < 0.2 and self.scene.style == "town":
                foot = (s, side * (plan.kerb(side) + 0.4))
                draw = lambda canvas, gain, foot=foot: street.paint_bollard(canvas, light, foot)  # noqa: E731
            elif drawn[0] < 0.24:
                foot = (s, side * (plan.kerb(side) - 0.3))
                draw = lambda canvas, gain, foot=foot: street.paint_cone(canvas, light, foot)  # noqa: E731
            else:
                continue
            items.append(Item(self.order(*foot, travel), draw, foot, self._thin_shadow(foot, 1.0, 0.5)))
        return items

    # what moves, and what is parked

    def _car_item(self, car: Car, at: tuple[float, float], forward: int, travel: float) -> Item:
        light = self.scene.light
        half = np.array([car.length_m / 2, car.half_width_m])
        foot = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + at
        def shadow(shade: Shade) -> None:
            if light.shadow > 0.05:
                shade.block(foot, 1.15, 230)
            shade.hull((foot - at) * (1.02, 1.06) + at, 255)
        return Item(self.order(*at, travel), lambda canvas, gain: paint_car(canvas, light, car, at, forward, gain=gain), at, shadow)

    def _car(self, name: str, side: int, slot: int) -> tuple[Car, np.ndarray]:
        def make() -> tuple[Car, np.ndarray]:
            rng = self.rng(name, side, slot)
            return draw_car(rng), rng.random(4)
        return self.kept(("car", name, side, slot), make)

    def _parked(self, side: int, travel: float) -> list[Item]:
        plan, items = self.scene.street, []
        if not plan.parked or not plan.parking_m[side > 0]:
            return items
        for slot in self.slots(travel, 5.8, ahead=120, back=2.0):
            car, drawn = self._car("parked", side, slot)
            if drawn[0] < plan.parked and car.kind not in ("bus", "lorry"):
                u = side * (plan.kerb(side) - 1.0 + 0.1 * drawn[1])
                items.append(self._car_item(car, ((slot + 0.5) * 5.8 + 0.5 * drawn[2], u), -1 if drawn[3] < 0.4 * (side > 0) else 1, travel))
        return items

    def _traffic(self, travel: float, time_s: float) -> list[Item]:
        scene, plan = self.scene, self.scene.street
        lane, half = plan.lane_m, plan.median_m / 2
        items = []
        for number in range(plan.lanes):
            u = half + (number + 0.5) * lane
            speed = scene.speed_ms * (1.0 - 0.15 * number)
            items += self._lane(f"onward{number}", -u, speed, 1, 24.0, travel, time_s, ahead_only=number == 0)
            items += self._lane(f"coming{number}", u, -speed * 0.95, -1, 27.0, travel, time_s, ahead_only=False)
        return items

    def _lane(self, name: str, u: float, speed: float, forward: int, gap: float, travel: float, time_s: float, *, ahead_only: bool) -> list[Item]:
        """Cars of one speed, each in a slot of a frame that moves with them."""
        moved = speed * time_s
        items = []
        for slot in self.slots(travel - moved, gap, ahead=150, back=6):
            car, drawn = self._car(name, 0, slot)
            s = (slot + 0.2 + 0.6 * drawn[1]) * gap + moved + 0.8 * np.sin(0.4 * time_s + 6 * drawn[2])
            if drawn[0] < self.scene.street.traffic and not (ahead_only and s - travel < 9 + car.length_m / 2):
                items.append(self._car_item(car, (s, u + 0.3 * (drawn[3] - 0.5)), forward, travel))
        return items

    def _walkers(self, side: int, travel: float, time_s: float) -> list[Item]:
        plan, items = self.scene.street, []
        if not plan.pavement_m or not plan.people:
            return items
        for way, gap in ((1, 9.0), (-1, 8.0)):
            speed = 1.25 * way
            for slot in self.slots(travel - speed * time_s, gap, ahead=95, back=0):
                person, drawn = self._person(f"walker{way}", side, slot)
                if drawn[0] < plan.people * 0.55:
                    s = (slot + drawn[1]) * gap + speed * time_s
                    u = side * (plan.front(side) - plan.pavement_m * (0.2 + 0.5 * drawn[2]))
                    items.append(self._walker_item(person, (s, u), (float(way), 0.0), 1.25 * time_s + 9 * drawn[3] + 0.1, travel))
        for slot in self.slots(travel, 19.0, ahead=90, back=0):  # those who wait or look at windows
            person, drawn = self._person("stander", side, slot)
            if drawn[0] < plan.people * 0.6:
                at = ((slot + drawn[1]) * 19.0, side * (plan.kerb(side) + plan.verge_m + (0.5 if drawn[2] < 0.5 else plan.pavement_m - 0.45)))
                items.append(self._walker_item(person, at, (0.0, float(-side if drawn[3] < 0.5 else side)), 0.0, travel))
        return items

    def _person(self, name: str, side: int, slot: int) -> tuple[Person, np.ndarray]:
        def make() -> tuple[Person, np.ndarray]:
            rng = self.rng(name, side, slot)
            return draw_person(rng), rng.random(4)
        return self.kept(("person", name, side, slot), make)

    def _walker_item(self, person: Person, at: tuple[float, float], heading: tuple[float, float], gone: float, travel: float) -> Item:
        light = self.scene.light
        draw = lambda canvas, gain: paint_walker(canvas, light, person, at, heading, gone, gain=gain)  # noqa: E731
        return Item(self.order(*at, travel), draw, at, self._body_shadow(at, 1.7 * person.height, 0.36))

    def _body_shadow(self, at: tuple[float, float], high: float, wide: float) -> Callable[[Shade], None]:
        base = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (wide / 2) + at
        def shadow(shade: Shade) -> None:
            if self.scene.light.shadow > 0.05:
                shade.block(base, high, 220)
            shade.hull(base, 200)
        return shadow

    def _riders(self, side: int, travel: float, time_s: float) -> list[Item]:
        plan, light, items = self.scene.street, self.scene.light, []
        if not plan.cycling:
            return items
        speed = -side * 4.6
        u = side * (plan.median_m / 2 + plan.lanes * plan.lane_m - 0.45)
        for slot in self.slots(travel - speed * time_s, 21.0, ahead=110, back=0):
            person, drawn = self._person("rider", side, slot)
            if drawn[0] < plan.cycling * 0.6:
                at = ((slot + drawn[1]) * 21.0 + speed * time_s, u)
                draw = lambda canvas, gain, person=person, at=at, gone=drawn[2]: paint_rider(  # noqa: E731
                    canvas, light, person, at, -side, 4.6 * time_s + 9 * gone, gain=gain
                )
                items.append(Item(self.order(*at, travel), draw, at, self._body_shadow(at, 1.7, 0.5)))
        return items

    # crossings

    def _crossings(self, travel: float, time_s: float) -> list[Item]:
        """Zebra crossings with beacons, and stop lines with traffic lights."""
        if self.scene.style not in ("town", "suburb"):
            return []
        items = []
        for slot in self.slots(travel, 62.0, ahead=120):
            drawn = self.kept(("cross", slot), lambda slot=slot: self.rng("cross", 0, slot).random(3))
            s = (slot + 0.3 + 0.4 * drawn[1]) * 62.0
            if drawn[0] < 0.38:
                items += self._zebra(s, travel)
            elif drawn[0] < 0.75:
                items += self._signals(s, travel, time_s + 20 * drawn[2])
        return items

    def _marks(self, marks: list[np.ndarray]) -> Item:
        light = self.scene.light
        middle = marks[0].mean(axis=0)
        def draw(canvas: Canvas, gain: float) -> None:
            for mark in marks:
                street.paint_road_mark(canvas, light, mark, 0.0)
        return Item(1e6, draw, (float(middle[0]), float(middle[1])))

    def _zebra(self, s: float, travel: float) -> list[Item]:
        plan, light = self.scene.street, self.scene.light
        left, right = -plan.kerb(-1) + 0.25, plan.kerb(1) - 0.25
        marks = []
        for u in np.arange(left, right - 0.5, 1.1):
            marks.append(np.array([[s, u], [s, u + 0.55], [s + 2.6, u + 0.55], [s + 2.6, u]]))
        items = [self._marks(marks)]
        for side, at in ((-1, s - 0.5), (1, s + 3.1)):
            foot = (at, side * (plan.kerb(side) + 0.5))
            draw = lambda canvas, gain, foot=foot: street.paint_beacon(canvas, light, foot)  # noqa: E731
            items.append(Item(self.order(*foot, travel), draw, foot, self._thin_shadow(foot, 2.9, 0.12)))
        return items

    def _signals(self, s: float, travel: float, clock: float) -> list[Item]:
        plan, light = self.scene.street, self.scene.light
        left = -plan.kerb(-1) + 0.2
        items = [self._marks([np.array([[s, left], [s, -0.1], [s + 0.3, -0.1], [s + 0.3, left]])])]
        aspect = 2  # the drive never stops
        for side in (-1, 1):
            foot = (s + 0.6, side * (plan.kerb(side) + 0.45))
            draw = lambda canvas, gain, foot=foot: street.paint_traffic_light(canvas, light, foot, aspect)  # noqa: E731
            items.append(Item(self.order(*foot, travel), draw, foot, self._thin_shadow(foot, 3.2, 0.2)))
        return items

    # the picture

    def develop(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """What the camera makes of the light: tone, colour, softness, vignette and noise; (h, w, 3) uint8."""
        grade = self.scene.grade
        height, width = frame.shape[:2]
        blur = grade.blur_px * width / 480
        if blur > 0.15:
            frame = cv2.GaussianBlur(frame, (0, 0), blur)
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        mixed = cv2.addWeighted(frame, grade.saturation, cv2.merge([grey] * 3), 1 - grade.saturation, 0)
        ramp = (np.arange(256, dtype=np.float32) / 255) ** grade.gamma * 255
        table = np.clip(ramp[:, None] * np.float32(grade.gain), 0, 255).astype(np.uint8)[None]
        toned = cv2.LUT(mixed, table).astype(np.float32)
        toned *= self._vignette(height, width)
        shift = np.random.default_rng((self.scene.seed, round(time_s * 1000) & 0xFFFFFFFF)).integers(0, 256, 2)
        tile = np.roll(self.noise, tuple(shift), axis=(0, 1))
        grain = np.tile(tile, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
        toned += grain * np.float32(grade.noise)
        return np.clip(toned, 0, 255).astype(np.uint8)

    def _vignette(self, height: int, width: int) -> np.ndarray:
        def make() -> np.ndarray:
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            x = np.linspace(-1, 1, width, dtype=np.float32)[None]
            return (1 - self.scene.grade.vignette * (x * x + y * y) / 2)[..., None]
        return self.kept(("vignette", height, width), make)


@lru_cache(maxsize=3)
def _world(scene: Scene) -> World:
    return World(scene)
