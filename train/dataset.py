"""A dataset on disk: pairs of image and mask, and how they are read.

Knows the dataset1 layout and plain folders. Does not split, resize, augment or batch. Masks are 8-bit single-channel
PNG whose pixel values are class ids.

Orientation policy: pixels are used as stored, for images and masks alike; EXIF rotation is ignored, because a mask
drawn on the stored pixels carries none (`inspect` names every image with an EXIF rotation).
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_seg.errors import ConfigurationError, DatasetError

from .classes import ClassList

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Sample:
    """One labelled image: its name without suffix, `composed`, and the paths of the image and of its mask.

    `ignored` is (mask value that means unlabelled, id of the unlabelled class), where the two differ.
    """

    stem: str
    image: Path
    mask: Path
    ignored: tuple[int, int] | None = None


def find_samples(
    root: Path | str | None,
    split: str = "train",
    *,
    images: Path | str | None = None,
    masks: Path | str | None = None,
    classes: ClassList | None = None,
) -> list[Sample]:
    """List a dataset's pairs, sorted by stem.

    Args:
        root: a folder in the dataset1 layout: `images_prepped_{split}` beside `annotations_prepped_{split}`.
        split: "train" or "test".
        images, masks: plain folders instead of the layout.
        classes: what the masks hold; None for CamVid's.

    Raises:
        DatasetError: a folder is missing or empty, two files share a stem, or an image has no mask or a mask no image;
            each is named.
    """
    image_dir, mask_dir = dataset_folders(root, split, images=images, masks=masks)
    (found_images, twice), (found_masks, masks_twice) = by_stem(image_dir.iterdir()), by_stem(mask_dir.iterdir())
    problems = twice + masks_twice
    if problems:
        raise DatasetError(f"{len(problems)} file(s) share a name with another; keep one of each:", tuple(problems))
    problems = orphans(found_images, found_masks, image_dir, mask_dir)
    if problems:
        raise DatasetError(
            f"{len(problems)} orphan file(s); give each image a mask of the same name, or move it away:",
            tuple(problems),
        )
    if not found_images:
        raise DatasetError(f"No images in {image_dir}; expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    ignored = ignored_value(classes or ClassList())
    return [Sample(stem, found_images[stem], found_masks[stem], ignored) for stem in sorted(found_images)]


def ignored_value(classes: ClassList) -> tuple[int, int] | None:
    """`Sample.ignored` for these classes."""
    if classes.ignored is None or classes.unlabelled is None:
        return None
    return classes.ignored, classes.unlabelled


def dataset_folders(
    root: Path | str | None, split: str = "train", *, images: Path | str | None = None, masks: Path | str | None = None
) -> tuple[Path, Path]:
    """The image folder and the mask folder of a split; raises `DatasetError` when one does not exist."""
    if (images is None) != (masks is None):
        raise ConfigurationError("Plain folders come as a pair: give both the image folder and the mask folder.")
    if images is not None and masks is not None:
        folders = Path(images), Path(masks)
    elif root is None:
        raise ConfigurationError("Give a dataset folder, or an image folder and a mask folder.")
    else:
        folders = Path(root) / f"images_prepped_{split}", Path(root) / f"annotations_prepped_{split}"
    for folder in folders:
        try:
            there = folder.is_dir()
        except OSError as error:  # A name that no folder can have, or one that may not be looked into.
            raise DatasetError(f"{str(folder)[:200]} is no folder to read ({error.strerror}); name another.") from error
        if not there:
            raise DatasetError(
                f"{folder} is not a folder.",
                cure=f"Expected the dataset1 layout (images_prepped_{split} beside annotations_prepped_{split}), or "
                "plain folders given with --images and --masks.",
            )
    return folders


def refuse_gone(run: Path, *places: Path | str | None) -> None:
    """Raise `DatasetError`, with the cure, if a folder is gone that a run's config.json records as its data's.

    Args:
        run: its folder.
        places: those that it records; None for one that it does not.
    """
    for place in places:
        if place is not None and not os.path.isdir(place):
            raise DatasetError(
                f"{place} is not a folder (any more), and {run} records its data there.",
                cure="Say where that is now: give DATASET, or --images and --masks.",
            )


def by_stem(paths: Iterable[Path]) -> tuple[dict[str, Path], list[str]]:
    """The image files among `paths` by `composed` stem, and a problem for each file whose stem is already taken."""
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(paths):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        stem = composed(path.stem)
        if stem in found:
            alike = "" if path.stem == found[stem].stem else " (spelt with other Unicode code points)"
            problems.append(f"{path}: shares its stem with {found[stem].name}{alike}; keep one of the two")
        else:
            found[stem] = path
    return found, problems


def composed(name: str) -> str:
    """A name with each umlaut or accent as one code point (NFC), as keyboards write it: some disks and archives keep
    them as two, and the names that a run records must be found there too. Files are opened by the name they have."""
    return unicodedata.normalize("NFC", name)


def orphans(images: dict[str, Path], masks: dict[str, Path], image_dir: Path, mask_dir: Path) -> list[str]:
    """A problem for each image without a mask and each mask without an image, sorted by stem."""
    return [
        f"{mine[stem]}: no {other} of that name in {folder}"
        for mine, theirs, other, folder in ((images, masks, "mask", mask_dir), (masks, images, "image", image_dir))
        for stem in sorted(mine.keys() - theirs.keys())
    ]


def read_image(path: Path) -> np.ndarray:
    """Read an image as cv2 does: (H, W, 3) uint8 BGR, pixels as stored. Raises `DatasetError` if unreadable."""
    image = _decode(path, cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path}: not a readable image (damaged, truncated or of another kind).")
    return image


def _decode(path: Path, mode: int) -> np.ndarray | None:
    """An image's pixels as stored, or None. Not by imread, which ends the process if a name is not UTF-8."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    return cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None


def read_mask(path: Path) -> np.ndarray:
    """Read a mask's class ids: (H, W) uint8. Raises `DatasetError` if unreadable or not single-channel 8-bit.

    Some copies of dataset1 store three equal channels, as the notebook reads them; those are accepted.
    """
    mask = _decode(path, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise DatasetError(f"{path}: not a readable mask (damaged, truncated or of another kind).")
    if mask.ndim == 3 and mask.shape[2] == 3 and (mask == mask[:, :, :1]).all():
        mask = np.ascontiguousarray(mask[:, :, 0])  # a view would keep all three
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DatasetError(
            f"{path}: expected an 8-bit single-channel mask of class ids, got {mask.dtype} {mask.shape}; "
            "a colour mask, perhaps. Write each pixel's class id."
        )
    return mask


def read_pair(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read a sample's image, (H, W, 3) uint8 BGR, and mask, (H, W) uint8. Raises `DatasetError` if unreadable."""
    return read_image(sample.image), read_ids(sample)


def read_ids(sample: Sample) -> np.ndarray:
    """Read a sample's mask as class ids, (H, W) uint8, none of them `ignored`. Raises `DatasetError` if unreadable."""
    mask = read_mask(sample.mask)
    if sample.ignored is not None:
        value, unlabelled = sample.ignored
        mask[mask == value] = unlabelled
    return mask


def data_hash(samples: list[Sample]) -> str:
    """SHA-256 over the `composed` names and the bytes of every image and mask, first 16 hex digits: what a run records
    of its data."""
    digest = hashlib.sha256()
    for sample in samples:
        for path in (sample.image, sample.mask):
            digest.update(os.fsencode(composed(path.name)))
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
