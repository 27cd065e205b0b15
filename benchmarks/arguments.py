"""Command-line values of the benchmarks; argparse reports what these types raise in one line and exits 2."""

from __future__ import annotations

import argparse

from edge_seg.arguments import number, positive
from edge_seg.devices import parse_device
from edge_seg.errors import ConfigurationError
from edge_seg.steady import LONGEST_HOLD

from .cases import PEERS

AXES = ("batch", "resolution", "threads", "length")


def whole_numbers(text: str) -> tuple[int, ...]:
    """ "1,4,8" -> (1, 4, 8), ascending, each once."""
    return tuple(sorted({positive(part) for part in text.split(",")}))


def side_list(text: str) -> tuple[int, ...]:
    """ "224,352" -> (224, 352): sides of frames that the network takes."""
    found = whole_numbers(text)
    if any(side % 32 for side in found):
        raise argparse.ArgumentTypeError(f"expected multiples of 32, like 224,352; got {text!r}")
    return found


def hold_list(text: str) -> tuple[int, ...]:
    """ "2,3" -> (2, 3), values that `predict --smooth` accepts."""
    found = whole_numbers(text)
    if found[-1] > LONGEST_HOLD:
        raise argparse.ArgumentTypeError(f"expected whole numbers from 1 to {LONGEST_HOLD}, got {text!r}")
    return found


def minute_list(text: str) -> tuple[float, ...]:
    """ "1,0.5" -> (0.5, 1.0), lengths of a clip."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(0 < length <= 600 for length in found):
        raise argparse.ArgumentTypeError(f"expected minutes with commas between, like 1,10,60; got {text!r}")
    return found


def rate(text: str) -> float:
    """Frames a second of a clip."""
    return number(text, 0.01, 1000)


def axis_list(text: str) -> tuple[str, ...]:
    """ "batch,threads" -> ("batch", "threads"), some of `AXES`."""
    words = tuple(dict.fromkeys(text.split(",")))
    unknown = [word for word in words if word not in AXES]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected axes of {','.join(AXES)}; got {', '.join(unknown)}")
    return words


def device_list(text: str) -> tuple[str, ...]:
    """ "cpu,cuda" -> ("cpu", "cuda:0"); a wrong name is refused at once, before minutes are spent."""
    try:
        return tuple(dict.fromkeys(str(parse_device(word.strip())) for word in text.split(",")))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def peer_list(text: str) -> tuple[str, ...]:
    """ "litert,torch" -> ("litert", "torch"); "none" -> (), "all" -> all of `PEERS`."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    words = {"none": (), "all": PEERS}.get(text, words)
    unknown = [word for word in words if word not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected peers of {','.join(PEERS)}, or none; got {', '.join(unknown)}")
    return words
