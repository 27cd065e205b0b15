"""A teacher: a finished network's opinions of the training images, for another to learn from; and frames without masks.

The teacher sees each image once, whole and clean, at three sizes; the student gets its opinion cut and mirrored with
the crop, whatever light and blur the crop was given (Hinton and others, 2015, arXiv 1503.02531, for learning from
probabilities; Radosavovic and others, 2018, arXiv 1712.04440, for a teacher that averages several views; Xie and
others, 2020, arXiv 1911.04252, for unlabelled images and a student whose images are harder than its teacher's). Knows
nothing of losses or batches.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.items import Item, expand_sources
from edge_seg.memory import amount
from edge_seg.preprocess import resize_frame
from edge_seg.sources import open_item

from .augment import Pair
from .labelers import open_keras, resize_channels
from .run import Run, open_run

BATCH = 4
# Multiples of the input size. With the bundled network, before it was trained on nights, the mean over these had a mean
# IoU of 0.642 on the held-out images, one size 0.622, one size and its mirror image 0.626, and all three with their
# mirror images, at twice the time, 0.644.
SCALES = (0.75, 1.0, 1.36)
# Seconds between the frames taken of a clip: neighbours are nearly the same picture.
EVERY_S = 0.5
MOST_FRAMES = 2000
# All frames and all of the teacher's opinions are held at once. A frame of 360x480 takes 0.5 MB, and so does an opinion
# of CamVid's classes at 352x480.
MOST_BYTES = 8_000_000_000


def opinions_of(teacher: Run, pairs: Sequence[Pair], size: tuple[int, int]) -> list[np.ndarray]:
    """The teacher's opinion of each image: (height / 2, width / 2, classes) uint8, probabilities times 255.

    The mean over three input sizes, kept at half the resolution: FCN8's scores are eight times coarser than the image.

    Args:
        teacher: a finished run.
        pairs: (image, mask); the masks are not used.
        size: input (height, width) for a teacher that fixes none.
    """
    labeler = open_keras(teacher, input_size=teacher.fcn8.input_size or size, batch=BATCH, flip=False, scales=SCALES)
    half = labeler.size[1] // 2, labeler.size[0] // 2
    # On two cores this takes minutes, before anything else is printed.
    print(f"teacher {teacher.name}: looking at {len(pairs)} images", file=sys.stderr)
    found: list[np.ndarray] = []
    for first in range(0, len(pairs), BATCH):
        images = [pairs[index][0] for index in range(first, min(first + BATCH, len(pairs)))]
        for probabilities in labeler.probabilities(images)[-1]:
            small = resize_channels(probabilities, half, cv2.INTER_AREA)
            found.append((small * 255.0 + 0.5).astype(np.uint8))
        if sys.stderr.isatty():
            print(f"\r\x1b[2Kteacher: {len(found)} of {len(pairs)} images", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return found


def opinion_bytes(teacher: Run, size: tuple[int, int]) -> int:
    """Bytes of one image's opinion, as `opinions_of` keeps it."""
    height, width = teacher.fcn8.input_size or size
    return (height // 2) * (width // 2) * len(teacher.classes)


def refuse_many(images: int, opinion: int) -> None:
    """Raise `ConfigurationError`, before the teacher looks, if its opinions of all labelled images are too large.

    Args:
        images: number of labelled images.
        opinion: bytes of each opinion.
    """
    if images * opinion > MOST_BYTES:
        raise ConfigurationError(
            f"--teacher: its opinions of {images} images would take {amount(images * opinion)}, all held at once; "
            f"expected at most {amount(MOST_BYTES)}, {MOST_BYTES // opinion} images. Give fewer, or train without."
        )


def unlabelled_frames(
    places: Sequence[Path], size: tuple[int, int], *, labelled: int = 0, opinion: int = 0
) -> list[np.ndarray]:
    """Pictures, and two frames a second of each clip, resized to `size`: (height, width, 3) uint8 BGR each.

    Args:
        places: pictures, clips, and folders of them.
        size: (height, width) of the labelled images, so that their objects can be pasted into the frames.
        labelled: number of labelled images, whose opinions share the room.
        opinion: bytes of each opinion.

    Raises:
        ConfigurationError: a camera or an address, which have no end; more than 2000 frames, or than 8 GB hold together
            with all opinions; no frame at all.
        MediaError: a picture or clip cannot be read.
    """
    frames: list[np.ndarray] = []
    room = MOST_BYTES - labelled * opinion
    most = min(MOST_FRAMES, room // (3 * size[0] * size[1] + opinion))
    for item in expand_sources(list(places), say=_say) if places else ():
        if item.live:
            raise ConfigurationError(f"--unlabelled: expected pictures, clips or folders of them; got {item.name}.")
        for image in _spaced(item):
            frames.append(resize_frame(image, size))
            if len(frames) > most:
                raise ConfigurationError(
                    f"--unlabelled: more than {most} frames of {size[0]}x{size[1]}, the labelled images' size (of a "
                    "clip, two a second; --teacher's opinions take room too); give fewer or shorter clips."
                )
    if places and not frames:
        raise ConfigurationError(f"--unlabelled: no frame in {', '.join(map(str, places))}.")
    return frames


def _say(text: str) -> None:
    print(f"--unlabelled {text}", file=sys.stderr)


def _spaced(item: Item) -> Iterator[np.ndarray]:
    due = -np.inf
    with open_item(item) as source:
        for frame in source:
            if frame.time_s >= due and not frame.corrupt:
                yield frame.image
                due = frame.time_s + EVERY_S


def frames_hash(frames: Sequence[np.ndarray]) -> str:
    """SHA-256 of the frames' pixels, first 16 hex digits."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.hexdigest()[:16]


def teacher_record(folder: Path) -> dict[str, str]:
    """What a run records of its teacher: the folder's name, and the first 16 hex digits of its weights' SHA-256."""
    run = open_run(folder)
    return {"run": run.name, "hash": hashlib.sha256(run.finished_weights().read_bytes()).hexdigest()[:16]}
