"""Paints the scene renderer's cut-outs and panels: trees, hedges, fences, awnings, signs.

Every painter takes a random generator and the light; knows nothing of the camera.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .canvas import Colour, Texture, f32, i32
from .paint import readable
from .plan import Light

LEAVES: tuple[tuple[Colour, Colour], ...] = (  # dark and light of one tree
    ((30, 62, 42), (70, 158, 122)), ((26, 58, 52), (66, 150, 150)), ((34, 70, 36), (92, 166, 112)),
    ((40, 56, 34), (104, 140, 96)),
)  # fmt: skip
RUST: tuple[tuple[Colour, Colour], ...] = (
    ((24, 54, 84), (60, 140, 196)), ((22, 60, 96), (70, 168, 212)), ((30, 48, 78), (68, 104, 160)),
)  # fmt: skip


TREE_PX = 320
"""Texels of a tree's side."""


def leafy_tree(rng: np.random.Generator, light: Light, autumn: float) -> Texture:
    """A tree as a cut-out with alpha: a trunk, then dabs of leaf from the dark inside to the lit outside."""
    image = np.zeros((TREE_PX, TREE_PX, 4), np.uint8)
    palette = RUST if rng.random() < autumn - 0.45 else LEAVES
    dark, pale = (f32(c) * rng.uniform(0.88, 1.1) for c in palette[int(rng.integers(len(palette)))])
    _trunk(image, rng, light)
    # clumps fill an egg; each is a ball of dabs
    n = int(rng.integers(11, 17))
    angle, reach = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0, 1, n))
    egg = rng.uniform(0.26, 0.36), rng.uniform(0.24, 0.31)
    clumps = np.stack(
        [0.5 + egg[0] * reach * np.cos(angle), 0.40 + egg[1] * reach * np.sin(angle), rng.uniform(0.09, 0.15, n)], 1
    )
    dabs = 190
    direction = rng.standard_normal((n, dabs, 3))
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    centre = clumps[:, None, :2] + direction[..., :2] * clumps[:, None, 2:] * rng.uniform(0.75, 1.05, (n, dabs, 1))
    # sun in the cut-out's own axes: x right, y up, z towards the camera
    sun = np.array([light.sun[1], light.sun[2], -light.sun[0]])
    normal = np.stack([direction[..., 0], -direction[..., 1], direction[..., 2]], axis=2)
    height = (0.72 - centre[..., 1]) / 0.6
    facing = np.clip(normal @ sun, -0.3, 1) * (0.35 + 0.65 * (light.shadow > 0.3))
    tone = np.clip(
        0.16 + 0.34 * facing + 0.34 * height + 0.16 * normal[..., 1] + rng.normal(0, 0.08, height.shape), 0, 1
    )
    flat = np.array(light.ambient) + 0.62 * np.array(light.direct)
    colours = np.clip((dark + (pale - dark) * tone[..., None]) * flat * 1.08, 0, 255)
    order = np.argsort((direction[..., 2] + tone * 1.2).ravel(), kind="stable")
    spots, paints = (centre.reshape(-1, 2) * TREE_PX * 8).astype(int), colours.reshape(-1, 3)
    sizes = rng.integers(2, 6, (len(spots), 2)) + 1
    turns = rng.integers(0, 180, len(spots))
    for i in order:
        axes = (int(sizes[i, 0]), int(sizes[i, 1]))
        at = (int(spots[i, 0] // 8), int(spots[i, 1] // 8))
        cv2.ellipse(image, at, axes, int(turns[i]), 0, 360, (*paints[i].tolist(), 255), -1)
    return Texture(image)


def _trunk(image: np.ndarray, rng: np.random.Generator, light: Light) -> None:
    bark = f32([58, 70, 82]) * rng.uniform(0.7, 1.0) * light.gain((-0.7, 0, 0))
    lean = rng.uniform(-0.02, 0.02)
    foot, fork = np.array([0.5, 1.0]), np.array([0.5 + lean, 0.62])
    for k, shade in ((0.0, 0.75), (0.008, 1.12)):
        shape = np.array([foot, fork, fork, foot]) + np.array([[k - 0.026, 0], [k - 0.015, 0], [0.013, 0], [0.022, 0]])
        cv2.fillConvexPoly(image, i32(shape * TREE_PX), (*(np.clip(bark * shade, 0, 255)).tolist(), 255))
    for _ in range(5):
        tip = fork + np.array([rng.uniform(-0.2, 0.2), -rng.uniform(0.12, 0.3)])
        cv2.line(
            image,
            i32(fork * TREE_PX).tolist(),
            i32(tip * TREE_PX).tolist(),
            (*(bark * 0.8).tolist(), 255),
            TREE_PX // 90,
        )


def bare_tree(rng: np.random.Generator, light: Light) -> Texture:
    """A winter tree: branches that fork; its labels fill the gaps between the twigs."""
    image = np.zeros((TREE_PX, TREE_PX, 4), np.uint8)
    bark = f32([66, 74, 84]) * rng.uniform(0.75, 1.1) * light.gain((-0.6, 0, 0.3))
    twigs = [(np.array([0.5, 1.0]), -np.pi / 2, 0.27, 0.034)]
    while twigs:
        foot, angle, length, thick = twigs.pop()
        tip = foot + length * np.array([np.cos(angle), np.sin(angle)])
        tone = (*np.clip(bark * rng.uniform(0.8, 1.15), 0, 255).tolist(), 255)
        cv2.line(
            image,
            i32(foot * TREE_PX).tolist(),
            i32(tip * TREE_PX).tolist(),
            tone,
            max(1, round(thick * TREE_PX)),
            cv2.LINE_8,
        )
        if length > 0.028:
            for spread in rng.normal([-0.46, 0.0, 0.46], 0.16):
                twigs.append((tip, angle + spread, length * rng.uniform(0.62, 0.76), thick * 0.6))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (TREE_PX // 20, TREE_PX // 20))
    solid = cv2.morphologyEx(image[..., 3], cv2.MORPH_CLOSE, kernel)
    return Texture(image, solid)


def hedge(rng: np.random.Generator, light: Light, *, side: int) -> Texture:
    """A clipped hedge with a ragged top, seen from the street."""
    width, height = 384, 128
    image = np.zeros((height, width, 4), np.uint8)
    dark, pale = (f32(c) * rng.uniform(0.8, 1.0) for c in LEAVES[int(rng.integers(len(LEAVES)))])
    flat = light.gain((0, -side * 0.6, 0.8))
    cv2.rectangle(image, (0, 12), (width, height), (*(dark * flat * 0.8).tolist(), 255), -1)
    for _ in range(1300):
        x, y = rng.uniform(0, width), 6 + (height - 6) * rng.uniform(0, 1) ** 1.2
        tone = np.clip(0.75 - 0.75 * y / height + rng.normal(0, 0.14), 0, 1)
        paint = np.clip((dark + (pale - dark) * tone) * flat, 0, 255)
        for shift in (-width, 0, width):
            if -8 < x + shift < width + 8:
                axes = (int(rng.integers(3, 7)), int(rng.integers(2, 5)))
                cv2.ellipse(
                    image, (int(x + shift), int(y)), axes, int(rng.integers(180)), 0, 360, (*paint.tolist(), 255), -1
                )
    return Texture(image)


def railing(rng: np.random.Generator, light: Light, *, side: int) -> Texture:
    """Iron bars under a rail, 2 m by 1 m; the labels fill the gaps."""
    image = np.zeros((112, 224, 4), np.uint8)
    paint = f32([(44, 46, 44), (150, 152, 150), (60, 74, 34)][int(rng.integers(3))]) * light.gain((0, -side, 0.3))
    tone = (*np.clip(paint, 0, 255).tolist(), 255)
    pale = (*np.clip(paint * 1.35 + 8, 0, 255).tolist(), 255)
    for x in range(6, 224, 14):
        cv2.rectangle(image, (x, 6), (x + 3, 111), tone, -1)
        cv2.line(image, (x, 6), (x, 111), pale, 1)
    for y in (4, 92):
        cv2.rectangle(image, (0, y), (223, y + 6), tone, -1)
        cv2.line(image, (0, y), (223, y), pale, 1)
    return Texture(image, np.full((112, 224), 255, np.uint8))


def boards(rng: np.random.Generator, light: Light, *, side: int) -> Texture:
    """A fence of upright wooden boards, 2 m by 1.5 m."""
    wood = f32([(86, 120, 152), (66, 92, 118), (118, 138, 150)][int(rng.integers(3))])
    image = np.ones((144, 192, 3), np.float32) * wood
    for x in range(0, 192, 16):
        image[:, x : x + 16] *= rng.uniform(0.85, 1.12)
        image[:, x : x + 2] *= 0.55
    image *= 1 + 0.05 * cv2.resize(rng.standard_normal((4, 96)).astype(np.float32), (192, 144))[..., None]
    image[:8] *= 1.12
    image[100:] *= np.linspace(1, 0.72, 44, dtype=np.float32)[:, None, None]
    return Texture(np.clip(image * light.gain((0, -side, 0)).astype(np.float32), 0, 255).astype(np.uint8))


def rails(rng: np.random.Generator, light: Light, *, side: int, steel: bool) -> Texture:
    """A post-and-rail fence, or a crash barrier, 3 m by 1.1 m; the labels fill the gaps."""
    image = np.zeros((88, 240, 4), np.uint8)
    paint = f32((158, 158, 154) if steel else (96, 122, 146)) * rng.uniform(0.85, 1.05) * light.gain((0, -side, 0.3))
    tone = lambda by: (*np.clip(paint * by, 0, 255).tolist(), 255)  # noqa: E731
    cv2.rectangle(image, (112, 4), (124, 87), tone(0.75), -1)
    for y, deep in ((22, 26),) if steel else ((10, 10), (36, 10), (62, 10)):
        cv2.rectangle(image, (0, y), (239, y + deep), tone(0.92), -1)
        cv2.line(image, (0, y), (239, y), tone(1.3), 2)
        cv2.line(image, (0, y + deep // 2), (239, y + deep // 2), tone(0.7 if steel else 0.92), 3 if steel else 1)
        cv2.line(image, (0, y + deep), (239, y + deep), tone(0.6), 2)
    solid = np.zeros((88, 240), np.uint8)
    solid[8:] = 255
    return Texture(image, solid)


def awning(rng: np.random.Generator, light: Light) -> Texture:
    """The striped cloth of an awning."""
    image = np.full((64, 256, 3), 222, np.float32)
    paint = f32([(60, 60, 176), (120, 84, 40), (66, 110, 46), (40, 128, 196)][int(rng.integers(4))])
    for x in range(0, 256, 32):
        image[:, x : x + 16] = paint
    image *= np.linspace(1.05, 0.85, 64, dtype=np.float32)[:, None, None]
    return Texture(np.clip(image * light.gain((-0.3, 0, 0.9)).astype(np.float32), 0, 255).astype(np.uint8))


SIGN_KINDS = ("speed", "warning", "parking", "no entry", "arrow", "directions", "shop")


def sign(rng: np.random.Generator, light: Light, kind: str, *, mirrored: bool) -> Texture:
    """A sign's face, 96 by 96 texels with alpha."""
    image = np.zeros((96, 96, 4), np.uint8)
    gain = light.gain((-0.8, 0, 0.4))
    paint = lambda b, g, r: (*np.clip(f32([b, g, r]) * gain, 0, 255).tolist(), 255)  # noqa: E731
    white, red, blue, black = paint(232, 236, 236), paint(44, 40, 198), paint(166, 84, 24), paint(30, 30, 30)
    if kind == "speed":
        cv2.circle(image, (48, 48), 46, red, -1)
        cv2.circle(image, (48, 48), 34, white, -1)
        cv2.putText(
            image, str(rng.choice(["20", "30", "40"])), (20, 62), cv2.FONT_HERSHEY_DUPLEX, 1.45, black, 3, cv2.LINE_8
        )
    elif kind == "warning":
        cv2.fillConvexPoly(image, i32([[48, 3], [94, 86], [2, 86]]), red)
        cv2.fillConvexPoly(image, i32([[48, 22], [79, 78], [17, 78]]), white)
        cv2.rectangle(image, (44, 40), (52, 62), black, -1)
        cv2.circle(image, (48, 70), 5, black, -1)
    elif kind == "no entry":
        cv2.circle(image, (48, 48), 46, red, -1)
        cv2.rectangle(image, (18, 40), (78, 56), white, -1)
    elif kind == "arrow":
        cv2.circle(image, (48, 48), 46, white, -1)
        cv2.circle(image, (48, 48), 43, blue, -1)
        cv2.arrowedLine(image, (66, 26), (30, 68), white, 9, cv2.LINE_8, tipLength=0.5)
    elif kind == "parking":
        cv2.rectangle(image, (8, 2), (88, 94), white, -1)
        cv2.rectangle(image, (12, 6), (84, 90), blue, -1)
        cv2.putText(image, "P", (28, 70), cv2.FONT_HERSHEY_DUPLEX, 2.1, white, 6, cv2.LINE_8)
    else:
        _board(image, rng, kind, white, paint)
    return Texture(readable(image, mirrored))


def _board(image: np.ndarray, rng: np.random.Generator, kind: str, white: Colour, paint: Callable[..., Colour]) -> None:
    """A rectangle full of lines of lettering: directions, or a shop's hanging sign."""
    fields = (
        [(60, 104, 20), (160, 80, 20), (226, 230, 230)]
        if kind == "directions"
        else [(40, 40, 120), (60, 34, 72), (38, 70, 30)]
    )
    field = fields[int(rng.integers(3))]
    ink = white if sum(field) < 500 else paint(30, 30, 30)
    cv2.rectangle(image, (0, 0), (95, 95), white, -1)
    cv2.rectangle(image, (3, 3), (92, 92), paint(*field), -1)
    for y in (22, 46, 70):
        x = 10
        while x < 74:
            w = int(rng.integers(6, 16))
            cv2.rectangle(image, (x, y), (min(x + w, 84), y + 9), ink, -1)
            x += w + 4
