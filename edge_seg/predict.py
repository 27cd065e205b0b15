"""Many sources through one model: each gets a report of its own, and one bad file does not stop the others.

Knows no command line: its caller passes options, and a `Progress` for messages.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from .account import SourceReport, frame_counts, losses, source_facts
from .errors import EdgeSegError, MediaError
from .images import ImageFiles
from .items import Item
from .labelling import PipelineOptions, Predictor
from .media import Source, SourceCounts, SourceEnd, SourceInfo
from .names import Plan, partial_path
from .outputs import ImageOutputs, MadeElsewhere, VideoOutputs
from .phrases import joined
from .pipeline import STAGES, Pipeline, PipelineReport
from .progress import Progress
from .records import Entry, Records
from .redact import redact, redact_foreign
from .resume import findings, tell
from .sources import open_item
from .steady import Smoother, check_hold
from .timings import Stopwatch
from .writers import OutputStyle, Written

MADE_ELSEWHERE = "made elsewhere"
Look = Callable[[Item, Plan], "tuple[Plan, SourceReport | None]"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How sources are processed.

    Attributes:
        pipeline: which frames are segmented.
        style: how results look.
        give_up_s: how long to wait for a live source that has gone silent.
        wait_s: how long to wait for a live source that cannot be opened yet.
        hold: frames for which a class may be kept against the model's, see `steady.Smoother`; 1 changes nothing.
        overwrite: existing results are replaced.
    """

    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    style: OutputStyle = field(default_factory=OutputStyle)
    give_up_s: float = 30.0
    wait_s: float = 0.0
    hold: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_hold(self.hold)


def options_that_matter(options: PredictOptions, item: Item, kind: str) -> dict[str, Any]:
    """The options that affect the content of one kind of result of an item, by their command-line names."""
    found: dict[str, Any] = {}
    pipeline, style = options.pipeline, options.style
    if item.kind != "image":
        found |= {"--stride": pipeline.stride, "--limit": pipeline.limit, "--drop-corrupt": pipeline.drop_corrupt}
        found |= {"--smooth": options.hold}
        if item.track > 1:
            found |= {"--track": item.track}
    if kind == "overlay":
        found |= {"--alpha": style.alpha}
    if kind in ("overlay", "mask") and item.kind != "image":
        codec = style.encode.codec_options()
        found |= {"--codec": style.encode.codec, "--crf": codec["crf"], "--preset": codec["preset"]}
    return found


class Run:
    """One run over many sources.

    Args:
        predictor: a Segmenter.
        options: see `PredictOptions`.
        progress: where remarks and the progress bar go.
        records: where finished results are recorded.
        look: with `--resume`, called at each source's turn: (source, its results) -> the results still to be made, and
            the source's report if there are none.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        options: PredictOptions,
        progress: Progress,
        records: Records,
        look: Look | None = None,
    ) -> None:
        self._predictor, self._options, self._progress = predictor, options, progress
        self._records, self._look = records, look
        self._pipeline: Pipeline | None = None
        self._stopped = threading.Event()
        self.watches = {stage: Stopwatch() for stage in STAGES}

    def request_stop(self) -> None:
        """Finish what is under way and start nothing new. Safe in a signal handler."""
        self._stopped.set()
        if self._pipeline is not None:
            self._pipeline.request_stop()

    def process(self, items: Sequence[Item], plans: Sequence[Plan]) -> Iterator[SourceReport]:
        """Process the items in order; yields a report for each, as soon as it is known.

        With `look`, items that another run was making are looked at again after all others.
        """
        pictures: list[tuple[Item, Plan]] = []
        busy: list[tuple[Item, Plan]] = []
        for item, plan in zip(items, plans, strict=True):
            todo, report = self._looked_at(item, plan)
            if item.kind == "image" and report is None:
                pictures.append((item, todo))
                continue
            yield from self._pictures(pictures)
            pictures = []
            report = report or self._guard(item, partial(self._video, item, todo))
            if report.status == MADE_ELSEWHERE and self._look is not None:
                busy.append((item, plan))
            else:
                yield report
        yield from self._pictures(pictures)
        for item, plan in busy:
            todo, report = self._looked_at(item, plan)
            yield report or self._guard(item, partial(self._video, item, todo))

    def _looked_at(self, item: Item, plan: Plan) -> tuple[Plan, SourceReport | None]:
        if self._look is None or self._stopped.is_set():
            return plan, None
        try:
            return self._look(item, plan)
        except Exception as error:
            return {}, SourceReport(source=item.name, status="failed", message=_words(error))

    def _replaceable(self, plan: Plan) -> frozenset[Path]:
        """The existing results that may be replaced: with `look` those that it has just been shown."""
        if self._look is None and not self._options.overwrite:
            return frozenset()
        return frozenset(path for path in plan.values() if self._options.overwrite or os.path.lexists(path))

    def _guard(self, item: Item, work: Callable[[], SourceReport]) -> SourceReport:
        if self._stopped.is_set():
            return _not_started(item)
        try:
            return work()
        except MadeElsewhere as error:
            return SourceReport(source=item.name, status=MADE_ELSEWHERE, message=redact(str(error)))
        except Exception as error:
            # Even a bug of ours in one source must not stop the others.
            return SourceReport(source=item.name, status="failed", message=_words(error))

    def _video(self, item: Item, plan: Plan) -> SourceReport:
        entry = self._records.begin(item, plan)
        replaceable = self._replaceable(plan)
        try:
            source = open_item(
                item,
                give_up_s=self._options.give_up_s,
                wait_s=self._options.wait_s,
                on_event=self._progress.note,
                stopped=self._stopped.is_set,
            )
        except MediaError as error:
            if item.on_disk or not self._stopped.is_set():
                raise
            return SourceReport(
                source=item.name, status="interrupted", message=f"stopped before it was there ({redact(str(error))})"
            )
        with source:
            if self._look is not None and source.info.live:
                _spare(plan)
            elif self._look is not None and item.live:
                # An address that turned out to be a file: its results are made again like any file's.
                tell(item, plan, findings(item, plan, self._records), self._progress.note)
            sink = VideoOutputs(
                plan,
                lambda: source.info,
                self._predictor.spec,
                style=self._options.style,
                audio_from=Path(item.location) if item.kind == "video" else None,
                seal=entry.seal,
                replaces=replaceable,
            )
            try:
                report = self._pump(source, sink)
                return self._conclude(item, source, sink, report, entry)
            finally:
                sink.abort()

    def _pump(self, source: Source, sink: VideoOutputs | ImageOutputs) -> PipelineReport:
        """Run the pipeline, showing the progress bar."""
        options, hold = self._options.pipeline, self._options.hold
        if source.info.kind == "images":
            # Pictures are independent of one another: each gets labels of its own.
            options, hold = replace(options, stride=1, limit=None), 1
        limit, count = options.limit, source.info.frame_count
        total = min(limit, count) if limit and count else limit or count
        pipeline = Pipeline(
            source,
            self._predictor,
            sink,
            options=options,
            # A new one for each source: smoothing must not carry over.
            postprocess=Smoother(hold) if hold > 1 else None,
            on_progress=self._progress.update,
        )
        self._pipeline = pipeline
        if self._stopped.is_set():
            pipeline.request_stop()
        self._progress.begin(source.info.name, total)
        try:
            return pipeline.run()
        finally:
            self._pipeline = None
            self._progress.end()
            for stage, watch in pipeline.watches.items():
                self.watches[stage].absorb(watch)

    def _conclude(
        self, item: Item, source: Source, sink: VideoOutputs, report: PipelineReport, entry: Entry
    ) -> SourceReport:
        status, message = _judge(source, report)
        # Results of a source that broke off get their final names; those of an interrupted or failed run do not.
        whole = status in ("done", "incomplete")
        entry.remark = message
        written, problems = sink.close(whole=whole, all_audio=not report.limited) if report.written else ([], [])
        if problems:
            status, message = "failed", joined(message, *problems)
        if not whole:
            kept = [result for result in written if str(result.path) not in message]
            message = joined(message, *(f"{result.frames} frames are kept in {result.path}" for result in kept))
        return SourceReport(
            status=status,
            message=redact(message),
            outputs={result.kind: str(result.path) for result in written},
            frames=report.frames,
            **source_facts(source),
            wall_s=report.wall_s,
            frames_per_s=report.frames_per_s,
            stages=report.stages,
            age=report.age,
            flicker=report.flicker,
            raw_flicker=report.raw_flicker,
            notes=_notes(item, source.info, written),
        )

    def _pictures(self, waiting: list[tuple[Item, Plan]]) -> Iterator[SourceReport]:
        """Run consecutive pictures through the model together, so that batches fill up."""
        if not waiting:
            return
        if self._stopped.is_set():
            yield from (_not_started(item) for item, _ in waiting)
            return
        files = [Path(item.location) for item, _ in waiting]
        plans = {str(path): plan for path, (_, plan) in zip(files, waiting, strict=True)}
        try:
            seals = {str(path): self._records.begin(*pair).seal for path, pair in zip(files, waiting, strict=True)}
        except MediaError as error:
            # All results of a run have one file of records.
            failed = SourceReport(source="", status="failed", message=redact(str(error)))
            yield from (replace(failed, source=item.name) for item, _ in waiting)
            return
        replaceable = frozenset[Path]().union(*(self._replaceable(plan) for _, plan in waiting))
        sink = ImageOutputs(plans, self._predictor.spec, style=self._options.style, seals=seals, replaces=replaceable)
        problems = sink.problems
        with ImageFiles(files, on_error=lambda path, error: problems.__setitem__(str(path), str(error))) as source:
            report = self._pump(source, sink)
        for path, (item, plan) in zip(files, waiting, strict=True):
            yield _picture_report(item, plan, sink.written.get(str(path), []), problems.get(str(path), ""), report)


def _spare(plan: Plan) -> None:
    """Raise `MediaError` if a result of a live source is there, whole or partial: nobody can film that time again."""
    found = [str(path) for final in plan.values() for path in (final, partial_path(final)) if os.path.lexists(path)]
    if found:
        raise MediaError(
            f"{', '.join(found)}: from an earlier run of a live source, which --resume cannot make again. Move it "
            "away, choose another OUT for each run, or replace it with --overwrite."
        )


def _notes(item: Item, info: SourceInfo, written: list[Written]) -> tuple[str, ...]:
    """Remarks on a source and on the results that were written."""
    notes = [f"video track {info.track} of {info.tracks}"] if info.tracks > 1 else []
    notes += [f"{info.rotation}, as the file asks"] if info.rotation else []
    notes += [f"HDR ({info.hdr}) taken as it is: pictures are paler than a player shows them"] if info.hdr else []
    notes += [note for result in written for note in result.notes]
    if not item.on_disk and info.audio and any(result.kind == "overlay" for result in written):
        notes.append("without its sound, which is carried from files alone")
    # Overlay and mask have the same note on padding: keep one.
    return tuple(dict.fromkeys(notes))


def _picture_report(
    item: Item, plan: Plan, written: list[Written], problem: str, report: PipelineReport
) -> SourceReport:
    """The report of one picture of those that ran together; its times are those of all of them."""
    done = len(written) == len(plan)
    status, message = ("done", "") if done else ("failed", problem)
    if not done and not problem:
        status = "failed" if report.error else "not started"
        message = _words(report.error) if report.error else "the run ended before it"
    return SourceReport(
        source=item.name,
        status=status,
        message=redact(message),
        outputs={result.kind: str(result.path) for result in written},
        frames=frame_counts(
            SourceCounts(read=int(status != "not started"), failed=int(status == "failed")), segmented=int(done)
        ),
        wall_s=report.wall_s,
        frames_per_s=report.frames_per_s,
        stages=report.stages,
    )


def _not_started(item: Item) -> SourceReport:
    return SourceReport(source=item.name, status="not started", message="the run was interrupted before it")


def _words(error: BaseException) -> str:
    """The error's text; other errors than ours and `OSError` get their type's name in front."""
    if isinstance(error, (EdgeSegError, OSError)):
        return redact(str(error))
    return redact_foreign(f"{type(error).__name__}: {error}")


def _judge(source: Source, report: PipelineReport) -> tuple[str, str]:
    """(status, message) for a source whose pipeline has ended."""
    if report.error is not None:
        return "failed", _words(report.error)
    if report.interrupted and not source.info.live:
        return "interrupted", f"stopped at {source.end.at_s:.2f} s"
    if not report.written:
        return "failed", f"{source.info.name}: {source.end.reason or 'not one frame came'}"
    parts = []
    if source.end.early:
        parts.append(_early_end(source.end))
    if lost := losses(source):
        parts.append(lost)
    return ("incomplete", "; ".join(parts)) if parts else ("done", "")


def _early_end(end: SourceEnd) -> str:
    of = f" of {end.expected_s:.2f} s" if end.expected_s else " s"
    return f"ended at {end.at_s:.2f}{of}" + (f": {end.reason}" if end.reason else "")
