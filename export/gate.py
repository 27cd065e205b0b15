"""The gate: compares an exported file with Keras, on the CPU provider, before it gets its final name.

Judges the very file that would be published, in varying batch sizes; only logits and confidence come from a second,
temporary file. Knows nothing of datasets or training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edge_seg.batches import run_in_parts
from edge_seg.phrases import percent
from edge_seg.proof import lost_classes
from edge_seg.session import Session
from edge_seg.spec import AGREEMENT_BOUNDS, VISIBLE_SHARE
from train.metrics import confusion_matrix, none_if_nan, scores

from .cpu import PROVIDER, cpu_session, watched
from .draft import Draft
from .evidence import Evidence

BATCH_SIZES = (1, 3, 2, 5)
IOU_BOUND_POINTS = 1.0
CLASS_BOUND_POINTS = 5.0  # a class has fewer pixels than the frame, so its IoU varies more by chance
CONFIDENCE_BOUND = 1e-3  # four times the rounding error of float16


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What the gate measured.

    Attributes:
        precision: of the file.
        provider, onnxruntime: what ran it.
        source: what the frames are, in words.
        frames, pixels: how many were compared.
        batch_sizes: those that were run, ascending.
        agreement, bound: share of pixels with Keras' label (0..1), and the least allowed.
        worst_logit_error, largest_logit: largest difference from a Keras logit, and the largest Keras logit, absolute.
        worst_confidence_error: of the confidence, against that of the file's own logits; None without a confidence.
        mean_iou_keras, mean_iou_onnx: against the true labels, over the classes that occur in them, unlabelled left
            out; None without true labels.
        mean_iou_points: ONNX minus Keras, in percentage points.
        iou_points: the same for each class; None where a class has no IoU.
        iou_with_keras: IoU of each class in ONNX's labels, with Keras' labels as the truth.
        other_size_agreement: agreement at another size, for a dynamic model.
        failures: each bound that was missed, in words; empty if the model may be published.
    """

    precision: str
    provider: str = PROVIDER
    onnxruntime: str = onnxruntime.__version__
    source: str
    frames: int
    pixels: int
    batch_sizes: tuple[int, ...]
    agreement: float
    bound: float
    worst_logit_error: float
    largest_logit: float
    worst_confidence_error: float | None
    mean_iou_keras: float | None
    mean_iou_onnx: float | None
    mean_iou_points: float | None
    iou_points: dict[str, float | None]
    iou_with_keras: dict[str, float | None]
    other_size_agreement: float | None = None
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; None stands for infinity and NaN, which JSON lacks."""
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def run_gate(
    draft: Draft,
    path: Path,
    evidence: Evidence,
    *,
    precision: str,
    classes: tuple[str, ...],
    unlabelled: int | None,
    trained: bool,
    other_size: Evidence | None = None,
) -> GateResult:
    """Compare a written model file with Keras.

    Args:
        draft: what `path` was written from; a fork of it with a logits output is run too.
        path: the file to be published.
        evidence: frames, and Keras' labels and logits.
        precision: decides the bound.
        classes, unlabelled: class names, and the class id left out of the mean IoU.
        trained: whether to bound each class' loss of IoU and int8's change of the mean; untrained, IoU is noise.
        other_size: evidence at another size, for a dynamic model.
    """
    session = cpu_session(path)
    labels = np.concatenate(
        [session.run(["labels"], {"frames": batch})[0] for batch in odd_batches(evidence.pictures.frames)]
    )
    # `_agreement` compares shapes first, since numpy would broadcast labels of another shape.
    agreement = _agreement(labels, evidence.labels)
    other = None
    if other_size is not None:
        other = _agreement(session.run(["labels"], {"frames": other_size.pictures.frames})[0], other_size.labels)
    del session
    bound = AGREEMENT_BOUNDS[precision]
    figures = _iou_figures(labels, evidence, classes, unlabelled)
    fallen = _class_failures(labels, evidence, classes, figures["iou_points"]) if trained else ()
    logits, confidence = _look_inside(draft, path.parent, evidence)
    worst = _worst_error(logits, evidence.logits)
    unsure = None if confidence is None else _worst_error(confidence, largest_shares(logits))
    return GateResult(
        precision=precision,
        source=evidence.pictures.source,
        frames=len(labels),
        pixels=int(labels.size),
        batch_sizes=tuple(sorted({len(batch) for batch in odd_batches(evidence.pictures.frames)})),
        agreement=agreement,
        bound=bound,
        worst_logit_error=worst,
        largest_logit=float(np.abs(evidence.logits).max()),
        worst_confidence_error=unsure,
        other_size_agreement=other,
        failures=_failures(
            agreement, other, bound, figures["mean_iou_points"], judge_iou=trained and precision == "int8"
        )
        + fallen
        + _score_failures(worst, unsure),
        **figures,
    )


def judge_device(session: Session, evidence: Evidence) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Compare the file, in a session on one more device, with the same evidence; returns figures and failures."""
    labels = run_in_parts(session.run, evidence.pictures.frames, 1)["labels"]
    name, arithmetic = session.device.name, session.device.arithmetic
    agreement, bound = _agreement(labels, evidence.labels), AGREEMENT_BOUNDS[arithmetic]
    failures = [*_failures(agreement, None, bound, None, judge_iou=False)]
    failures += lost_classes(labels, evidence.labels, session.spec.classes)
    figures = {"device": name, "arithmetic": arithmetic, "agreement": agreement, "bound": bound}
    return figures, tuple(f"on {name}, {failure}" for failure in failures)


def odd_batches(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Frames in batches of 1, 3, 2, 5, 1, 3, ..., so that an error at one batch size shows."""
    first = turn = 0
    while first < len(frames):
        size = BATCH_SIZES[turn % len(BATCH_SIZES)]
        yield frames[first : first + size]
        first, turn = first + size, turn + 1


def _agreement(labels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean(labels == expected)) if labels.shape == expected.shape else 0.0


def _look_inside(draft: Draft, folder: Path, evidence: Evidence) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits (K, H, W, classes) of the frames that have Keras' logits, from a fork of the graph that outputs them, and
    the confidence (K, H, W); None if the graph has none.
    """
    names = [draft.logits, *(output.name for output in draft.graph.output if output.name == "confidence")]
    with watched(draft, [draft.logits], folder) as session:
        packed, *rest = session.run(names, {"frames": evidence.pictures.frames[: len(evidence.logits)]})
    return unpack_logits(packed, draft.block), rest[0] if rest else None


def largest_shares(logits: np.ndarray) -> np.ndarray:
    """The largest softmax value of each pixel: (N, H, W, C) -> (N, H, W) float32."""
    return np.asarray(1 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1))


def _worst_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


def unpack_logits(packed: np.ndarray, block: int) -> np.ndarray:
    """(N, h, w, classes * block * block) -> (N, h * block, w * block, classes), as Keras lays them out."""
    count, height, width, channels = packed.shape
    classes = channels // block**2
    squares = packed.reshape(count, height, width, classes, block, block)
    return squares.transpose(0, 1, 4, 2, 5, 3).reshape(count, height * block, width * block, classes)


def _iou_figures(
    labels: np.ndarray, evidence: Evidence, classes: tuple[str, ...], unlabelled: int | None
) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(("mean_iou_keras", "mean_iou_onnx", "mean_iou_points"))
    figures |= {"iou_points": {}, "iou_with_keras": {}}
    if labels.shape != evidence.labels.shape or int(labels.max(initial=0)) >= len(classes):
        return figures
    mutual = scores(confusion_matrix(evidence.labels, labels, len(classes)), None).iou
    figures["iou_with_keras"] = _by_class(classes, mutual)
    truth = evidence.pictures.truth
    if truth is not None:
        keras, onnx = (
            scores(confusion_matrix(truth, found, len(classes)), unlabelled) for found in (evidence.labels, labels)
        )
        # A class absent from the truth gets an IoU of 0 once Keras or ONNX labels a single pixel with it. That pixel
        # would move one of the means by points, so only classes in the truth count.
        seen = (keras.confusion.sum(axis=1) > 0) & (np.arange(len(classes)) != unlabelled)
        if seen.any():
            figures["mean_iou_keras"], figures["mean_iou_onnx"] = (float(one.iou[seen].mean()) for one in (keras, onnx))
            figures["mean_iou_points"] = 100 * (figures["mean_iou_onnx"] - figures["mean_iou_keras"])
        figures["iou_points"] = _by_class(classes, 100 * (onnx.iou - keras.iou))
    return figures


def _class_failures(
    labels: np.ndarray, evidence: Evidence, classes: tuple[str, ...], points: dict[str, float | None]
) -> tuple[str, ...]:
    """Classes that collapsed, or lost too much IoU against the true labels; those too rare to judge are skipped."""
    if labels.shape != evidence.labels.shape:
        return ()
    failures = list(lost_classes(labels, evidence.labels, classes))
    truth = evidence.pictures.truth
    for index, name in enumerate(classes):
        change = points.get(name)
        if change is None or truth is None or np.mean(truth == index) < VISIBLE_SHARE:
            continue
        if change < -CLASS_BOUND_POINTS:
            failures.append(f"class {name} loses {-change:.1f} points of IoU; {CLASS_BOUND_POINTS:.1f} are allowed")
    return tuple(failures)


def _score_failures(worst: float, unsure: float | None) -> tuple[str, ...]:
    """Non-finite scores fail by themselves: a pixel that has no others may still get Keras' label by chance."""
    if not np.isfinite(worst):
        return ("its scores are not all numbers, or not in Keras' shape",)
    if unsure is not None and not unsure <= CONFIDENCE_BOUND:
        return (f"its confidence is up to {unsure:.2g} off its own scores; {CONFIDENCE_BOUND} is allowed",)
    return ()


def _by_class(classes: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    return {name: none_if_nan(value) for name, value in zip(classes, values, strict=True)}


def _failures(
    agreement: float, other: float | None, bound: float, points: float | None, *, judge_iou: bool
) -> tuple[str, ...]:
    failures = []
    if not agreement >= bound:
        failures.append(f"{percent(agreement, 4)} of pixels agree with Keras; at least {percent(bound, 2)} must")
    if other is not None and not other >= bound:
        failures.append(
            f"at another size {percent(other, 4)} of pixels agree with Keras; at least {percent(bound, 2)} must"
        )
    if judge_iou and points is not None and not abs(points) <= IOU_BOUND_POINTS:
        failures.append(f"mean IoU differs from Keras' by {points:+.2f} points; {IOU_BOUND_POINTS:.1f} is allowed")
    return tuple(failures)
