"""ModelSpec: the contract in a model file, and how it is written to and read from ONNX metadata.

Class names, palette and scaling are defined here and travel in the file; nothing downstream repeats them. Knows no
runtime: metadata is a mapping of strings to strings, wherever it was read.
"""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any

from .errors import ConfigurationError, ModelFileError

METADATA_KEY = "edge_seg"
GOLDEN_KEY = "edge_seg.golden"
FORMAT = 1
MAX_SIDE = 8192
MAX_RECORD = 2**20  # characters; the bundled model's has 5,000

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "unlabelled",
)
CAMVID_UNLABELLED = 11
CAMVID_PALETTE_RGB = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
    (0, 0, 0),
)
PRECISIONS = ("fp32", "fp16", "int8")
# Lowest share of pixels on which a device's labels must agree with Keras', by the arithmetic it really uses.
AGREEMENT_BOUNDS = {"fp32": 0.9999, "fp16": 0.995, "bf16": 0.995, "int8": 0.985}
# Most pixels are road or sky, so a small class can be lost with hardly any effect on that share. Therefore each class
# that covers VISIBLE_SHARE of the pixels or more must keep this IoU with Keras' labels; those of the bundled int8 model
# keep 0.95.
CLASS_IOU_BOUND = 0.5
VISIBLE_SHARE = 0.001


_PALETTE = "palette must hold one (R, G, B) of 0..255 a class"


def hls_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` evenly spaced hues, RGB 0..255, as seaborn's: lightness 0.6, saturation 0.65, first hue 0.01."""
    hues = ((index / count + 0.01) % 1.0 for index in range(count))
    return tuple(
        tuple(round(255 * channel) for channel in colorsys.hls_to_rgb(hue, 0.6, 0.65))  # type: ignore[misc]
        for hue in hues
    )


def plain_palette(palette: Iterable[Iterable[int]]) -> tuple[tuple[int, int, int], ...]:
    """Colours from any iterables as tuples of ints; raises `ConfigurationError` unless each is three whole numbers in
    0..255."""
    try:
        colors = [tuple(color) for color in palette]
    except TypeError:
        raise ConfigurationError(f"{_PALETTE}; got {palette!r}.") from None
    for color in colors:
        whole = [isinstance(part, Integral) and not isinstance(part, bool) and 0 <= part <= 255 for part in color]
        if len(whole) != 3 or not all(whole):
            raise ConfigurationError(f"{_PALETTE}; got {color!r}.")
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colors)


def finite(value: Any) -> Any:
    """Plain JSON types with None in place of each number that is infinite or NaN: Python writes those, and JSON lacks
    them."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def palette_for(classes: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """CamVid's colours for CamVid's class list, evenly spaced hues for any other; RGB."""
    return CAMVID_PALETTE_RGB if classes == CAMVID_CLASSES else hls_palette(len(classes))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The contract of one model file: uint8 BGR frames in, uint8 class ids out.

    Attributes:
        name: short name of the model.
        classes: class names, position = id.
        palette: one (R, G, B) 0..255 per class.
        unlabelled: id left out of the mean IoU as usually defined (docs/fcn.md), or None.
        input_size: (height, width) in pixels the model was exported for.
        dynamic_size: whether other multiples of 32 are accepted.
        precision: "fp32", "fp16" or "int8", of the file's weights and arithmetic.
        exact_sums: int8 only: no sum of two products exceeds 16 bits, so that x86 processors without VNNI compute the
            same as all others, at full speed.
        outputs: names of the graph's outputs, "labels" first.
        color_order, scaling, resize, label_resize: how frames become inputs and labels come back, in words.
        license: terms of use of the weights, in one line.
        versions: package -> version that made the file.
        training: summary of the run the weights came from.
        parity: what the export gate measured against Keras.
    """

    classes: tuple[str, ...] = CAMVID_CLASSES
    palette: tuple[tuple[int, int, int], ...] = CAMVID_PALETTE_RGB
    unlabelled: int | None = CAMVID_UNLABELLED
    input_size: tuple[int, int] = (224, 224)
    dynamic_size: bool = False
    precision: str = "fp32"
    exact_sums: bool = False
    outputs: tuple[str, ...] = ("labels",)
    name: str = "fcn8"
    color_order: str = "BGR"
    scaling: str = "x / 127.5 - 1, inside the graph"
    resize: str = "bilinear stretch"
    label_resize: str = "nearest"
    license: str = ""
    # Mappings count in comparisons, but cannot be hashed.
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parity: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette):
            raise ConfigurationError(f"{len(self.classes)} classes need as many colours, got {len(self.palette)}.")
        # Shares are given by name, and those of one of the two would be lost.
        if len(set(self.classes)) < len(self.classes):
            name = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ConfigurationError(f"classes must have different names; two are called {str(name)[:80]!a}.")
        object.__setattr__(self, "palette", plain_palette(self.palette))
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if self.unlabelled is not None and not 0 <= self.unlabelled < len(self.classes):
            raise ConfigurationError(f"unlabelled id {self.unlabelled} is not one of {len(self.classes)} classes.")
        if not self.outputs or self.outputs[0] != "labels" or set(self.outputs) - {"labels", "confidence"}:
            raise ConfigurationError(
                f'outputs must be "labels" or "labels,confidence"; got {",".join(self.outputs)!r}.'
            )

    def check_types(self) -> None:
        """Raise `ConfigurationError` unless every value is of its type and in range; a file can say anything."""

        def whole(value: object, low: int, high: int) -> bool:
            return type(value) is int and low <= value <= high

        ways = (self.color_order, self.scaling, self.resize, self.label_resize)
        texts = (*self.classes, *self.outputs, self.name, self.license, self.precision, *ways)
        if not 1 <= len(self.classes) <= 256 or not all(isinstance(text, str) for text in texts):
            raise ConfigurationError("names must be texts, and classes from 1 to 256.")
        # These are printed to terminals, which obey control characters.
        if strange := [text for text in texts if not text.isprintable()]:
            raise ConfigurationError(
                f"names and the license must be of printable characters, in one line; got {strange[0][:80]!a}."
            )
        if len(self.input_size) != 2 or not all(whole(side, 1, MAX_SIDE) for side in self.input_size):
            raise ConfigurationError(
                f"input_size must be two whole numbers from 1 to {MAX_SIDE}; got {self.input_size}."
            )
        for name in ("dynamic_size", "exact_sums"):
            if type(getattr(self, name)) is not bool:
                raise ConfigurationError(f"{name} must be true or false; got {getattr(self, name)!r}.")
        if self.unlabelled is not None and type(self.unlabelled) is not int:
            raise ConfigurationError(f"unlabelled must be an id; got {self.unlabelled!r}.")
        for record in (self.versions, self.training, self.parity):
            if not isinstance(record, Mapping):
                raise ConfigurationError("versions, training and parity must be records.")

    def to_metadata(self) -> dict[str, str]:
        """The spec as ONNX metadata: our own record, and the keys that ultralytics and OpenVINO's model_api read."""
        names = dict(enumerate(self.classes))
        return {
            METADATA_KEY: json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True),
            "names": str(names),
            "imgsz": str(list(self.input_size)),
            "stride": "32",
            "task": "semantic",
            "license": self.license,
            "model_info model_type": "Segmentation",
            # Readers of this key split at spaces.
            "model_info labels": " ".join(name.replace(" ", "_") for name in self.classes),
            # Scaling happens in the graph, and frames stay BGR: nothing is left for the reader to do.
            "model_info mean_values": "0.0 0.0 0.0",
            "model_info scale_values": "1.0 1.0 1.0",
            "model_info reverse_input_channels": "False",
            "model_info resize_type": "standard",
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str = "the model") -> ModelSpec:
        """Read back what `to_metadata` wrote.

        Raises:
            ModelFileError: no record of ours, a newer format, or a damaged one; `source` names the file.
        """
        if METADATA_KEY not in metadata:
            raise ModelFileError(
                f"{source} is an ONNX file, but not an edge_seg model: it has no {METADATA_KEY!r} metadata. "
                "Export one with `python -m export RUN --out model.onnx`."
            )
        if len(metadata[METADATA_KEY]) > MAX_RECORD:
            raise ModelFileError(
                f"{source}: its {METADATA_KEY!r} metadata has {len(metadata[METADATA_KEY])} characters, more than "
                f"{MAX_RECORD}. Export it again."
            )
        try:
            values = json.loads(metadata[METADATA_KEY])
            version = values.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFileError(
                f"{source}: its {METADATA_KEY!r} metadata is damaged ({error}). Export it again."
            ) from error
        if version != FORMAT:
            raise ModelFileError(
                f"{source} has metadata format {version}; this edge_seg reads format {FORMAT}. "
                "Upgrade edge-seg, or export the model again with this version."
            )
        try:
            for key in ("classes", "input_size", "outputs"):
                values[key] = tuple(values[key])
            for key in ("training", "parity"):
                values[key] = finite(values.get(key, {}))
            spec = cls(**values)
            spec.check_types()
            return spec
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise ModelFileError(f"{source}: its {METADATA_KEY!r} metadata does not fit ({error}).") from error
