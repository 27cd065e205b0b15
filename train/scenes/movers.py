"""Where a scene's cars, walkers and cyclists are at a given time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cars import Car, draw_car, paint_car
from .ground import Shade
from .people import Person, draw_person, paint_rider, paint_walker
from .world import Item, World, put_shaded


def moving(world: World, travel: float, time_s: float) -> list[Item]:
    """Everything in sight that moves, and the parked cars."""
    items = _traffic(world, travel, time_s)
    for side in (-1, 1):
        items += _parked(world, side, travel)
        items += _walkers(world, side, travel, time_s) + _riders(world, side, travel, time_s)
    return items


# what moves, and what is parked


def _car_item(world: World, car: Car, at: tuple[float, float], forward: int, travel: float) -> Item:
    light = world.scene.light
    half = np.array([car.length_m / 2, car.half_width_m])
    foot = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + at

    def shadow(shade: Shade) -> None:
        if light.shadow > 0.05:
            shade.block(foot, 1.15, 230)
        shade.hull((foot - at) * (1.02, 1.06) + at, 255)

    return Item(
        world.order(*at, travel),
        put_shaded(paint_car, light, car, at, forward),
        at,
        shadow,
    )


def _car(world: World, name: str, side: int, slot: int) -> tuple[Car, np.ndarray]:
    return world.kept(("mover", name, side, slot), _drawn, draw_car, world, name, side, slot)


def _person(world: World, name: str, side: int, slot: int) -> tuple[Person, np.ndarray]:
    return world.kept(("mover", name, side, slot), _drawn, draw_person, world, name, side, slot)


def _drawn(
    draw: Callable[[np.random.Generator], Any], world: World, name: str, side: int, slot: int
) -> tuple[Any, np.ndarray]:
    """What stands for a slot, and four random floats, 0..1, that say where."""
    rng = world.rng(name, side, slot)
    return draw(rng), rng.random(4)


def _parked(world: World, side: int, travel: float) -> list[Item]:
    plan = world.scene.street
    items: list[Item] = []
    if not plan.parked or not plan.parking_m[side > 0]:
        return items
    for slot in world.slots(travel, 5.8, ahead=120, back=2.0):
        car, drawn = _car(world, "parked", side, slot)
        if drawn[0] < plan.parked and car.kind not in ("bus", "lorry"):
            u = side * (plan.kerb(side) - 1.0 + 0.1 * drawn[1])
            items.append(
                _car_item(
                    world,
                    car,
                    ((slot + 0.5) * 5.8 + 0.5 * drawn[2], u),
                    -1 if drawn[3] < 0.4 * (side > 0) else 1,
                    travel,
                )
            )
    return items


def _traffic(world: World, travel: float, time_s: float) -> list[Item]:
    scene, plan = world.scene, world.scene.street
    lane, half = plan.lane_m, plan.median_m / 2
    items = []
    for number in range(plan.lanes):
        u = half + (number + 0.5) * lane
        speed = scene.speed_ms * (1.0 - 0.15 * number)
        items += _lane(world, f"onward{number}", -u, speed, 1, 24.0, travel, time_s, ahead_only=number == 0)
        items += _lane(world, f"coming{number}", u, -speed * 0.95, -1, 27.0, travel, time_s, ahead_only=False)
    return items


def _lane(
    world: World,
    name: str,
    u: float,
    speed: float,
    forward: int,
    gap: float,
    travel: float,
    time_s: float,
    *,
    ahead_only: bool,
) -> list[Item]:
    """Cars of one speed, each in a slot of a grid that moves along with them."""
    moved = speed * time_s
    items = []
    for slot in world.slots(travel - moved, gap, ahead=150, back=6):
        car, drawn = _car(world, name, 0, slot)
        s = (slot + 0.2 + 0.6 * drawn[1]) * gap + moved + 0.8 * np.sin(0.4 * time_s + 6 * drawn[2])
        if drawn[0] < world.scene.street.traffic and not (ahead_only and s - travel < 9 + car.length_m / 2):
            items.append(_car_item(world, car, (s, u + 0.3 * (drawn[3] - 0.5)), forward, travel))
    return items


def _walkers(world: World, side: int, travel: float, time_s: float) -> list[Item]:
    plan = world.scene.street
    items: list[Item] = []
    if not plan.pavement_m or not plan.people:
        return items
    for way, gap in ((1, 9.0), (-1, 8.0)):
        speed = 1.25 * way
        for slot in world.slots(travel - speed * time_s, gap, ahead=95, back=0):
            person, drawn = _person(world, f"walker{way}", side, slot)
            if drawn[0] < plan.people * 0.55:
                s = (slot + drawn[1]) * gap + speed * time_s
                u = side * (plan.front(side) - plan.pavement_m * (0.2 + 0.5 * drawn[2]))
                items.append(
                    _walker_item(world, person, (s, u), (float(way), 0.0), 1.25 * time_s + 9 * drawn[3] + 0.1, travel)
                )
    for slot in world.slots(travel, 19.0, ahead=90, back=0):  # people who wait or look at windows
        person, drawn = _person(world, "stander", side, slot)
        if drawn[0] < plan.people * 0.6:
            at = (
                (slot + drawn[1]) * 19.0,
                side * (plan.kerb(side) + plan.verge_m + (0.5 if drawn[2] < 0.5 else plan.pavement_m - 0.45)),
            )
            items.append(_walker_item(world, person, at, (0.0, float(-side if drawn[3] < 0.5 else side)), 0.0, travel))
    return items


def _walker_item(
    world: World, person: Person, at: tuple[float, float], heading: tuple[float, float], gone: float, travel: float
) -> Item:
    light = world.scene.light
    draw = put_shaded(paint_walker, light, person, at, heading, gone)
    return Item(world.order(*at, travel), draw, at, _body_shadow(world, at, 1.7 * person.height, 0.36))


def _body_shadow(world: World, at: tuple[float, float], high: float, wide: float) -> Callable[[Shade], None]:
    base = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (wide / 2) + at

    def shadow(shade: Shade) -> None:
        if world.scene.light.shadow > 0.05:
            shade.block(base, high, 220)
        shade.hull(base, 200)

    return shadow


def _riders(world: World, side: int, travel: float, time_s: float) -> list[Item]:
    plan, light = world.scene.street, world.scene.light
    items: list[Item] = []
    if not plan.cycling:
        return items
    speed = -side * 4.6
    u = side * (plan.median_m / 2 + plan.lanes * plan.lane_m - 0.45)
    for slot in world.slots(travel - speed * time_s, 21.0, ahead=110, back=0):
        person, drawn = _person(world, "rider", side, slot)
        if drawn[0] < plan.cycling * 0.6:
            at = ((slot + drawn[1]) * 21.0 + speed * time_s, u)
            draw = put_shaded(paint_rider, light, person, at, -side, 4.6 * time_s + 9 * drawn[2])
            items.append(Item(world.order(*at, travel), draw, at, _body_shadow(world, at, 1.7, 0.5)))
    return items
