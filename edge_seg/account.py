"""What became of a source's frames and results: one account for the terminal, for JSON and for the library.

Every frame is accounted for: read = segmented + failed + dropped + skipped. Knows nothing about commands or pipelines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .media import Event, Gap, Source, SourceCounts
from .phrases import counted
from .timings import StageTime

# The outcomes add up to the frames read; the remarks are not part of that sum.
OUTCOMES = ("segmented", "skipped", "failed", "dropped")
# {s} is the plural's s.
_REMARKS = {
    "corrupt": "damaged, concealed by the decoder or built on one that was",
    "damaged_packets": "damaged packet{s}",
    "resized": "of another size, brought to the first one's",
    "retimed": "without a usable time, given the next one",
    "reconnects": "time{s} opened again",
}


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """The account of one source.

    Attributes:
        source: the source's printable name.
        frames: "read", then the outcomes that add up to it: "segmented", "skipped" (shown with the labels of an earlier
            frame), "failed" (gave no picture, or was lost to an error), "dropped" (replaced by a newer frame, repeated
            by a dead camera, or left out as damaged); then remarks on the source: "corrupt", "damaged_packets",
            "resized", "retimed", "reconnects".
        declared_frames: the frame count in the file's header, which may be wrong; None if it has none.
        ended_at_s, expected_end_s: where the source ended, and where it says it should; None if it does not say.
        ended_early: whether that was too soon; None if unknown because reading stopped first.
        gap_s, gap_at_s: the longest time without a frame in a file, and where it begins; 0 unless it is longer than
            both a second and ten frames. Never in an MP4, whose frames each last until the next. The recorder may have
            paused; where packets were damaged, frames are missing.
        events: the latest 200 events of a live source.
    """

    source: str
    frames: dict[str, int] = field(default_factory=lambda: frame_counts(SourceCounts()))
    declared_frames: int | None = None
    ended_at_s: float | None = None
    expected_end_s: float | None = None
    ended_early: bool | None = None
    gap_s: float = 0.0
    gap_at_s: float = 0.0
    events: tuple[Event, ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether every frame read is accounted for."""
        return self.frames["read"] == sum(self.frames[key] for key in OUTCOMES)

    def account_line(self) -> str:
        """The account in one line, without the source's name."""
        frames = self.frames
        parts = [f"{counted(frames['read'], 'frame')} read: " + ", ".join(f"{frames[key]} {key}" for key in OUTCOMES)]
        for key, words in _REMARKS.items():
            if frames[key]:
                parts.append(f"{frames[key]} {words.format(s='' if frames[key] == 1 else 's')}")
        if self.gap_s:
            parts.append(f"no frame for {Gap(self.gap_s, self.gap_at_s)}")
        if self.ended_at_s is not None:
            word = "stopped" if self.ended_early is None else "ended"
            length = ", no length declared" if self.expected_end_s is None else f" of {self.expected_end_s:.2f} s"
            parts.append(f"{word} at {self.ended_at_s:.2f} s{length}")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class SourceReport(StreamReport):
    """What became of one source and its results.

    Attributes:
        status: "done", "already there", "incomplete" (only part of the source could be read), "interrupted", "failed",
            "made elsewhere" (another run is making it, or has just made it), or "not started".
        message: why, when it is not "done".
        outputs: kind -> path of what was written, partial names included.
        wall_s, frames_per_s: from the first frame read to the last one written.
        stages: stage -> milliseconds per frame.
        age: milliseconds from arrival to output, live sources only.
        flicker: share of pixels (0..1) that change class from one segmented frame to the next, motion included; None
            for pictures.
        raw_flicker: the same before smoothing.
        notes: remarks: which of several tracks, rotation, padding, audio, damage.
    """

    status: str
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    wall_s: float = 0.0
    frames_per_s: float = 0.0
    stages: dict[str, StageTime] = field(default_factory=dict)
    age: StageTime | None = None
    flicker: float | None = None
    raw_flicker: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in ("done", "already there")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def losses(source: Source) -> str:
    """The frames that a source lost before its end, in words; empty if none are known."""
    counts, missing = source.counts, source.end.missing
    if counts.failed:
        return f"{counts.failed} of {counts.read} frames could not be decoded"
    if missing.seconds:
        return f"frames are missing for {missing}" + (f" of {missing.name}" if missing.name != source.info.name else "")
    return ""


def frame_counts(
    counts: SourceCounts, *, segmented: int = 0, skipped: int = 0, lost: int = 0, left_out: int = 0
) -> dict[str, int]:
    """The `frames` of a report, from a source's own counts and what became of the frames it delivered.

    Args:
        counts: the source's own counts.
        segmented: frames delivered and segmented.
        skipped: frames delivered and shown with the labels of an earlier one.
        lost: frames delivered, but then lost to an error.
        left_out: frames delivered, but left out as damaged.
    """
    return {
        "read": counts.read,
        "segmented": segmented,
        "skipped": skipped,
        "failed": counts.failed + lost,
        "dropped": counts.dropped + left_out,
        **{key: getattr(counts, key) for key in _REMARKS},
    }


def source_facts(source: Source) -> dict[str, Any]:
    """The fields of a `StreamReport`, except `frames`, as the source gives them so far."""
    return {
        "source": source.info.name,
        "declared_frames": source.info.frame_count,
        "ended_at_s": round(source.end.at_s, 3),
        "expected_end_s": source.info.end_s,
        "ended_early": source.end.early,
        "gap_s": round(source.end.gap.seconds, 3),
        "gap_at_s": round(source.end.gap.at_s, 3),
        "events": tuple(source.events),
    }
