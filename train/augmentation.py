"""The strength of augmentation: a record, and the bounds of its values. Knows nothing of images."""

from __future__ import annotations

from dataclasses import dataclass, fields

from edge_seg.errors import ConfigurationError

# Smallest and largest allowed value of each field; both numbers of `scale` must lie in its range.
BOUNDS = {
    "scale": (0.25, 4.0),
    "aspect": (1.0, 2.0),
    "rotate_deg": (0.0, 45.0),
    "flip": (0.0, 1.0),
    "rare_focus": (0.0, 1.0),
    "paste": (0.0, 1.0),
    "light": (0.0, 2.0),
    "lens": (0.0, 1.0),
    "night": (0.0, 1.0),
    "repaint": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The range or probability of each random change.

    Attributes:
        scale: smallest and largest zoom, drawn log-uniformly; at 1 objects are as large as the network sees them.
        aspect: largest ratio by which width is stretched against height.
        rotate_deg: largest rotation either way, in degrees.
        flip: probability of a mirror image.
        rare_focus: probability that a crop is centred near a pixel of a rare class, where its image has any.
        paste: probability that rare objects of another image are pasted in, where that one has any.
        light: strength of brightness, contrast, gamma, colour and haze changes, 0 for none.
        lens: probability of blur, noise or JPEG artefacts.
        night: probability that the street is relit as if at night.
        repaint: probability that surfaces get other lightness, tint and grain; never together with `night`.

    Raises:
        ConfigurationError: a value lies outside `BOUNDS`.
    """

    scale: tuple[float, float] = (0.6, 1.8)
    aspect: float = 1.2
    rotate_deg: float = 4.0
    flip: float = 0.5
    rare_focus: float = 0.25
    paste: float = 0.38
    light: float = 1.0
    lens: float = 0.3
    night: float = 0.15
    repaint: float = 0.3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            low, high = BOUNDS[field.name]
            if not all(low <= number <= high for number in numbers):
                got = ":".join(f"{number:g}" for number in numbers)
                raise ConfigurationError(f"augmentation {field.name}: expected {low:g} to {high:g}, got {got}.")
        if self.scale[0] > self.scale[1]:
            raise ConfigurationError(
                "augmentation scale: expected the smaller zoom first, got {:g}:{:g}.".format(*self.scale)
            )
