"""`edge-seg predict`: the options become sources, plans and a run; each source's outcome, the speed and a summary are
printed. With `--json`, stdout carries one JSON object and nothing else; remarks go to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .account import SourceReport
from .arguments import model_named
from .codecs import EncodeOptions
from .console import put, put_json
from .errors import ConfigurationError
from .items import Item, expand_sources
from .labelling import PipelineOptions
from .modelfile import read_model_header
from .names import Plan, check_free, names_a_file, parse_kinds, plan_outputs
from .opencv import cv2
from .phrases import counted, percent
from .predict import PredictOptions, Run, options_that_matter
from .progress import Progress
from .records import Records
from .resume import names_kept, take_up
from .segmenter import Segmenter
from .session import load_runtime
from .signals import asked_twice, held_back
from .threads import available_threads
from .timings import Stopwatch
from .writers import OutputStyle

MOST_NAMED = 20  # sources that are not good, named again at the end
FINISHING = "Finishing the frames under way; once more to stop at once."
STOPPED = "error: stopped at once; what was written has .partial in its name, and --resume makes it again."
STOPPED_PIPE = "error: stopped at once; what was written has .partial in its name."


def run_predict(options: argparse.Namespace) -> int:
    """Segment the sources that the options name; returns the exit code."""
    settings = _predict_options(options)
    progress = Progress()
    items = expand_sources(options.source, track=options.track, say=progress.note)
    if options.resume and any(item.kind == "pipe" for item in items):
        raise ConfigurationError("--resume cannot know what comes through standard input (-); leave one of them out.")
    out = Path(options.out) if options.out else None
    folder_asked = bool(options.out) and options.out.endswith(("/", os.sep))
    plans = plan_outputs(items, parse_kinds(options.save), out, folder_asked=folder_asked)
    # By itself OpenCV counts the machine's cores and ignores the container's quota.
    cv2.setNumThreads(available_threads())
    model = model_named(options.model)
    records = Records(read_model_header(model).sha256, lambda item, kind: options_that_matter(settings, item, kind))
    look = None
    if options.resume:
        if not names_a_file(items, out, folder_asked=folder_asked):
            plans = names_kept(items, plans, records)
        look = partial(take_up, records=records, say=progress.note)
    elif not options.overwrite:
        check_free(plans)
    live = any(item.live for item in items)
    # Live frames go one by one, and each would be filled up to a whole batch.
    batch = 1 if live else options.batch
    # Overlapping batches would delay live frames, and a single picture has nothing to overlap with.
    overlapped = not live and [item.kind for item in items] != ["image"]
    with held_back():
        load_runtime()
    with Segmenter(model, device=options.device, batch_size=batch, overlapped=overlapped) as segmenter:
        progress.note(_device_line(segmenter))
        run = Run(segmenter, options=settings, progress=progress, records=records, look=look)
        reports = _process(run, items, plans, progress.note, quiet=options.json)
        at_once = segmenter.runs_at_once if overlapped else 1
        for line in [*_speed_lines(run.watches, reports, at_once), *_summary_lines(reports)]:
            progress.note(line)
        code = 0 if all(report.good for report in reports) else 1
        if options.json:
            put_json({"exit_code": code, **_model_facts(model, segmenter), "sources": [r.to_dict() for r in reports]})
    return code


def _process(
    run: Run, items: Sequence[Item], plans: Sequence[Plan], note: Callable[[str], None], *, quiet: bool
) -> list[SourceReport]:
    """Process all sources, and print each one's outcome once it is known."""
    reports = []
    last_words = STOPPED_PIPE if any(item.kind == "pipe" for item in items) else STOPPED
    with _warnings_as_lines(note), asked_twice(run.request_stop, said=FINISHING, last_words=last_words):
        for report in run.process(items, plans):
            reports.append(report)
            _say(report, note, quiet=quiet)
    return reports


def _predict_options(options: argparse.Namespace) -> PredictOptions:
    return PredictOptions(
        pipeline=PipelineOptions(
            batch_size=options.batch, stride=options.stride, limit=options.limit, drop_corrupt=options.drop_corrupt
        ),
        style=OutputStyle(
            alpha=options.alpha,
            encode=EncodeOptions(codec=options.codec, crf=options.crf, preset=options.preset),
        ),
        give_up_s=options.give_up,
        wait_s=options.wait,
        hold=options.smooth,
        overwrite=options.overwrite,
    )


@contextlib.contextmanager
def _warnings_as_lines(say: Callable[[str], None]) -> Iterator[None]:
    """Within the block, say each of the library's warnings in one line, without its place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        yield


def _device_line(segmenter: Segmenter) -> str:
    device = segmenter.device
    return f"{segmenter.spec.name} ({segmenter.spec.precision}) on {device.name}, {device.arithmetic}: {device.reason}"


def _say(report: SourceReport, note: Callable[[str], None], *, quiet: bool) -> None:
    """Print one source's outcome: results on stdout (stderr with --json), errors and remarks on stderr."""
    for path in report.outputs.values():
        if report.good or report.status == "incomplete":
            # A stdout that cannot be written is reported at the end; the sources that follow are still processed.
            with contextlib.suppress(OSError):
                note(f"{report.source} -> {path}") if quiet else put(f"{report.source} -> {path}")
    if report.status == "already there":
        note(f"{report.source}: already there")
    if report.ended_at_s is not None:
        note(f"{report.source}: {report.account_line()}")
    for text in report.notes:
        note(f"{report.source}: {text}")
    if not report.good:
        lead = "" if report.message.startswith(report.source) else f"{report.source}: "
        note(f"error: {lead}{report.status}: {report.message}" if lead else f"error: {report.message}")
    if report.flicker is not None:
        note(f"{report.source}: {_flicker_line(report)}")
    if report.age is not None:
        note(
            f"{report.source}: frames were {report.age.median_ms:.0f} ms old when written (p95 {report.age.p95_ms:.0f})"
        )


def _flicker_line(report: SourceReport) -> str:
    assert report.flicker is not None
    assert report.raw_flicker is not None
    line = f"flicker {percent(report.flicker, 1)} of the pixels change class from frame to frame"
    smoothed = report.flicker != report.raw_flicker
    return f"{line} ({percent(report.raw_flicker, 1)} before smoothing)" if smoothed else line


def _speed_lines(watches: dict[str, Stopwatch], reports: list[SourceReport], at_once: int) -> list[str]:
    """One line a stage, and one for the whole run; `at_once`: how many batches are inferred at once."""
    lines = []
    for stage, watch in watches.items():
        if (time := watch.summary()) is not None:
            spread = f"(median {time.median_ms:.1f}, p95 {time.p95_ms:.1f})"
            beside = f", {at_once} at once" if stage == "inference" and at_once > 1 else ""
            lines.append(f"{stage:<10} {time.mean_ms:7.1f} ms a frame {spread}{beside}")
    # Pictures that were processed together report the same wall time, which counts once.
    walls = {report.wall_s: report.frames_per_s * report.wall_s for report in reports if report.wall_s}
    if frames := round(sum(walls.values())):
        seconds = sum(walls)
        lines.append(f"end to end {frames / seconds:7.1f} frames/s: {counted(frames, 'frame')} in {seconds:.1f} s")
    return lines


def _summary_lines(reports: list[SourceReport]) -> list[str]:
    """The outcomes of several sources, naming those not good again: their own lines may have scrolled away."""
    if len(reports) < 2:
        return []
    statuses = Counter(report.status for report in reports)
    lines = [f"{counted(len(reports), 'source')}: {', '.join(f'{n} {status}' for status, n in statuses.items())}"]
    bad = [report for report in reports if not report.good]
    lines += [f"  {report.status}: {report.source}" for report in bad[:MOST_NAMED]]
    return [*lines, f"  and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else lines


def _model_facts(model: Path, segmenter: Segmenter) -> dict[str, Any]:
    return {"model": str(model), "device": asdict(segmenter.device), "batch": segmenter.batch_size}
