"""Find every fault of a dataset before training: all bad files are named at once, with what is wrong and the cure.

Looks at files and class ids; knows nothing of models or training. A file's raw bytes are checked first (pixel cap,
truncation), then it is read by `train.dataset`, as training will read it. Pixels are used as stored: an EXIF rotation
is a warning, because a mask seldom carries one too.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edge_seg.console import harmless
from edge_seg.errors import DatasetError
from edge_seg.image_files import ImageFault, ImageHeader, check_complete, read_header
from edge_seg.spec import CAMVID_CLASSES

from .classes import UNLABELLED_NAME, ClassList
from .dataset import IMAGE_SUFFIXES, Sample, by_stem, ignored_value, orphans, read_image, read_mask

# Files that declare more are not decoded. 8192 x 8192: above any road camera's frame, and 200 MB once decoded.
MAX_PIXELS = 1 << 26
IDS_NAMED = 12
# How many warnings are printed where a dataset is used rather than inspected.
WARNINGS_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What a check of every file of a dataset found.

    Attributes:
        images, masks: number of files of each kind.
        problems: "path: what is wrong", sorted; training must not go on with any.
        warnings: "path: what is odd", sorted.
        samples: the pairs without a problem, sorted by stem.
        sizes: (height, width) -> number of those pairs.
        class_pixels: (N, C) int64, pixels of each class in each of those pairs.
    """

    images: int
    masks: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    samples: tuple[Sample, ...]
    sizes: dict[tuple[int, int], int]
    class_pixels: np.ndarray


@dataclass(frozen=True)
class _Pair:
    sample: Sample
    problems: list[str]
    warnings: list[str]
    size: tuple[int, int] = (0, 0)
    pixels: np.ndarray | None = None


def check_dataset(image_dir: Path | str, mask_dir: Path | str, classes: ClassList) -> PreflightReport:
    """`preflight`, for callers that cannot go on with a bad file; raises `DatasetError` naming every one."""
    return refuse_problems(preflight(image_dir, mask_dir, classes))


def print_warnings(report: PreflightReport, most: int) -> None:
    """Print at most `most` warnings to stderr, then how many more there are."""
    for warning in report.warnings[:most]:
        print(f"warning: {harmless(warning)}", file=sys.stderr)
    if len(report.warnings) > most:
        print(f"warning: and {len(report.warnings) - most} more of the kind", file=sys.stderr)


def problem_summary(report: PreflightReport) -> str:
    """The heading of the list of problems, one line."""
    return (
        f"{len(report.problems)} problem(s) among {report.images} images and {report.masks} masks; "
        "mend these files or move them away:"
    )


def preflight(
    image_dir: Path | str,
    mask_dir: Path | str,
    classes: ClassList,
    *,
    on_pair: Callable[[int, int], None] | None = None,
) -> PreflightReport:
    """Check every file of a dataset.

    Args:
        image_dir, mask_dir: folders whose files pair up by stem.
        classes: what the masks hold.
        on_pair: called with (pairs done, pairs in all) after each.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    images, problems, warnings = _list_folder(Path(image_dir))
    masks, mask_problems, mask_warnings = _list_folder(Path(mask_dir))
    meant = ignored_value(classes)
    todo = [Sample(stem, images[stem], masks[stem], meant) for stem in sorted(images.keys() & masks.keys())]
    report = check_pairs(todo, classes, on_pair=on_pair, curable=classes.ignored is None)
    problems += mask_problems + orphans(images, masks, Path(image_dir), Path(mask_dir))
    return replace(
        report,
        images=len(images),
        masks=len(masks),
        problems=tuple(sorted((*problems, *report.problems))),
        warnings=tuple(sorted((*warnings, *mask_warnings, *report.warnings))),
    )


def check_pairs(
    samples: Sequence[Sample],
    classes: ClassList,
    *,
    on_pair: Callable[[int, int], None] | None = None,
    curable: bool = False,
) -> PreflightReport:
    """Check these pairs only; arguments as for `preflight`, and `curable`: problems may suggest --ignore-id."""
    pairs = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for pair in pool.map(partial(_check_pair, classes=classes, curable=curable), samples):
            pairs.append(pair)
            if on_pair:
                on_pair(len(pairs), len(samples))
    good = [pair for pair in pairs if not pair.problems]
    return PreflightReport(
        images=len(samples),
        masks=len(samples),
        problems=tuple(sorted(problem for pair in pairs for problem in pair.problems)),
        warnings=tuple(sorted(warning for pair in pairs for warning in pair.warnings)),
        samples=tuple(pair.sample for pair in good),
        sizes=dict(Counter(pair.size for pair in good).most_common()),
        class_pixels=np.array([pair.pixels for pair in good], np.int64).reshape(len(good), len(classes)),
    )


def refuse_problems(report: PreflightReport) -> PreflightReport:
    """The report itself if every file is good. Raises `DatasetError`, naming every bad file, if any is not."""
    if report.problems:
        raise DatasetError(problem_summary(report), report.problems)
    return report


def _list_folder(folder: Path) -> tuple[dict[str, Path], list[str], list[str]]:
    """Image files by stem, problems (an empty folder, two files of one stem), warnings (files that are passed over)."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror}); expected a folder of images.") from error
    found, problems = by_stem(entries)
    warnings = [
        f"{path}: passed over, its name does not end in {', '.join(IMAGE_SUFFIXES)}"
        for path in entries
        if path.suffix.lower() not in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        problems.append(f"{folder}: holds no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return found, problems, warnings


def _check_pair(sample: Sample, *, classes: ClassList, curable: bool) -> _Pair:
    """Check one image, its mask, and that they fit; a file's faults share one line."""
    faults: dict[Path, list[str]] = {sample.image: [], sample.mask: []}
    warnings = []
    image_header = _checked_header(sample.image, faults[sample.image])
    mask_header = _checked_header(sample.mask, faults[sample.mask])
    if image_header:
        _attempt(faults[sample.image], sample.image, read_image)
        if image_header.orientation != 1:
            warnings.append(
                f"{sample.image}: EXIF orientation {image_header.orientation} is ignored, pixels are used as stored; "
                "see that its mask was drawn on the stored pixels"
            )
    ids = None
    if mask_header:
        ids = _checked_ids(sample, mask_header, classes.names, faults[sample.mask], warnings, curable)
    if image_header and mask_header:
        faults[sample.mask] += _size_faults(image_header, mask_header)
    if ids is not None and classes.unlabelled is not None and ids[classes.unlabelled] == ids.sum():
        warnings.append(f"{sample.mask}: nothing in it is labelled")
    problems = [f"{path}: {'; '.join(found)}" for path, found in faults.items() if found]
    size = (image_header.height, image_header.width) if image_header else (0, 0)
    return _Pair(sample, problems, warnings, size, ids)


def _attempt(faults: list[str], path: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray | None:
    """What `read` returns; or None, with its error, less the path, added to `faults`."""
    try:
        return read(path)
    except DatasetError as error:
        faults.append(str(error).removeprefix(f"{path}: ").rstrip("."))
    return None


def _checked_header(path: Path, faults: list[str]) -> ImageHeader | None:
    """A file's header if the file is complete and small enough to decode; or None, the reason added to `faults`."""
    try:
        if not path.is_file():
            raise ImageFault("cannot be read (not a file)")
        # Eight bytes a pixel is the most an honest file needs (16-bit RGBA, not compressed).
        if path.stat().st_size > MAX_PIXELS * 8 + (1 << 20):
            raise ImageFault(f"{path.stat().st_size >> 20} MB is more than any image of {MAX_PIXELS} pixels needs")
        data = path.read_bytes()
        header = read_header(data)
        if header.width * header.height > MAX_PIXELS:
            raise ImageFault(
                f"declares {header.width}x{header.height} pixels in {len(data)} bytes; at most {MAX_PIXELS} pixels are "
                "decoded (a decompression bomb?)"
            )
        check_complete(data, header)
    except OSError as error:
        faults.append(f"cannot be read ({error.strerror})")
    except ImageFault as fault:
        faults.append(str(fault))
    else:
        return header
    return None


def _checked_ids(
    sample: Sample,
    header: ImageHeader,
    classes: tuple[str, ...],
    faults: list[str],
    warnings: list[str],
    curable: bool,
) -> np.ndarray | None:
    """(classes,) pixels of each id in a mask, or None; adds what is wrong to `faults` and what is odd to `warnings`."""
    if wrong := _mode_fault(header):
        faults.append(wrong)
        return None
    mask = _attempt(faults, sample.mask, read_mask)
    if mask is None:
        return None
    counts = np.bincount(mask.ravel(), minlength=256)
    ignored, unlabelled = sample.ignored or (None, None)
    if ignored is not None and unlabelled is not None:
        # An unlabelled class that was appended for the ignored value has no pixels of its own id. CamVid's unlabelled
        # class, or one of another name, was not appended, and its id is expected.
        if counts[unlabelled] and classes[unlabelled] == UNLABELLED_NAME and classes != CAMVID_CLASSES:
            warnings.append(
                f"{sample.mask}: id {unlabelled} in {counts[unlabelled]} pixels is left out as unlabelled, as "
                f"{ignored} is; name it in --classes if it is a class"
            )
        counts[unlabelled] += counts[ignored]
        counts[ignored] = 0
    if wrong := _id_fault(counts, len(classes), curable, ignored):
        faults.append(wrong)
        return None
    return counts[: len(classes)]


def _mode_fault(header: ImageHeader) -> str | None:
    """Why a mask's header rules it out as class ids, or None. RGB may hold three equal channels: its pixels decide."""
    expected = "expected 8-bit grey whose value is the class id"
    if header.kind in ("JPEG", "WebP"):
        return f"a {header.kind}, whose compression changes class ids; {expected}, as PNG"
    if header.color == "palette":
        return f"a palette {header.kind} (colours by index); {expected}: save the indices themselves"
    if header.bits != 8:
        return f"{header.bits}-bit {header.color}; {expected}"
    if header.color not in ("grey", "RGB"):
        return f"{header.color}; {expected}"
    return None


def _id_fault(counts: np.ndarray, classes: int, curable: bool, ignored: int | None) -> str | None:
    """What is wrong with a mask's ids, or None, given the pixels of each of the 256 values without `ignored`."""
    present = np.flatnonzero(counts)
    bad = present[present >= classes]
    if bad.size == 0:
        return None
    cure = f", or --ignore-id {bad[0]} where it means unlabelled" if curable and bad.size == 1 else ""
    if set(present.tolist()) <= {0, 255}:
        return f"a 0/255 mask; expected class ids 0 to {classes - 1}: write the class id instead of 255{cure}"
    named = ", ".join(str(value) for value in bad[:IDS_NAMED])
    more = f" and {bad.size - IDS_NAMED} more" if bad.size > IDS_NAMED else ""
    also = "" if ignored is None else f", or {ignored}"
    return f"id {named}{more} in {counts[bad].sum()} pixels; expected class ids 0 to {classes - 1}{also}{cure}"


def _size_faults(image: ImageHeader, mask: ImageHeader) -> list[str]:
    if (image.width, image.height) == (mask.width, mask.height):
        return []
    turned = (image.width, image.height) == (mask.height, mask.width)
    hint = " (one of the two is turned)" if turned else ""
    return [f"{mask.width}x{mask.height} pixels, but its image has {image.width}x{image.height}{hint}"]
