"""Pictures of datasets, training and evaluation, as PNG. Knows arrays, class names and colours; nothing of models.

Drawn with matplotlib's Agg canvas and no pyplot, which would keep every figure in its global state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from edge_seg.files import replacing
from edge_seg.overlay import Palette, colorize
from edge_seg.phrases import percent

from .history import column

INK, MUTED, GRID, PAPER = "#1f2933", "#6b7785", "#e4e8ec", "#ffffff"
TRAIN_COLOR, VALIDATION_COLOR = "#8fa3b8", "#c2410c"
MOST_TOLD = 40  # the most classes that a confusion matrix names
HEAT = LinearSegmentedColormap.from_list("heat", ["#f4f7fa", "#dbe7f3", "#8fb8de", "#3f7fbf", "#12406f"])
# Any, because matplotlib types the keys of its settings one by one.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    # Names of files and classes are plain text: two dollar signs do not make a formula.
    "text.parse_math": False,
}
# Characters that the font lacks are drawn as boxes, which the picture itself shows: no warning is needed.
warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font")


def curves(rows: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Loss and mean IoU over the epochs, training beside validation.

    Args:
        rows: of a run's history.csv: column name -> value, an empty one where there was no validation.
        path: the PNG to write.
    """
    epochs = column(rows, "epoch")
    with matplotlib.rc_context(STYLE):
        figure = Figure((11, 4), layout=ConstrainedLayoutEngine(wspace=0.06))
        panels = figure.subplots(1, 2)
        for axes, name, title in ((panels[0], "loss", "Loss"), (panels[1], "mean_iou", "Mean IoU")):
            marker = "o" if len(rows) < 2 else None
            axes.plot(epochs, column(rows, name), color=TRAIN_COLOR, linewidth=1.8, marker=marker, label="training")
            validation = column(rows, f"val_{name}")
            if (known := np.isfinite(validation)).any():
                # One line through the epochs that were validated, across those that were not.
                line = {"color": VALIDATION_COLOR, "linewidth": 2, "marker": "o" if known.sum() < 2 else None}
                axes.plot(epochs[known], validation[known], label="validation", **line)
                _mark_best(axes, epochs, validation, highest=name != "loss")
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.margins(x=0.02, y=0.15)
            if len(rows) == 1:
                # Otherwise the axis would span a hundredth of an epoch, with no whole number in it to label.
                axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
            axes.legend(loc="best")
        panels[1].set_ylim(bottom=0)
        _save(figure, path)


def _mark_best(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, highest: bool) -> None:
    best = int(np.nanargmax(values) if highest else np.nanargmin(values))
    axes.plot(epochs[best], values[best], "o", color=VALIDATION_COLOR, markersize=7, markeredgecolor=PAPER)
    axes.annotate(
        f"{values[best]:.3f} at epoch {epochs[best]:.0f}",
        (epochs[best], values[best]),
        xytext=(0, 10 if highest else -16),
        textcoords="offset points",
        ha="center" if len(epochs) == 1 else "right" if best > len(epochs) / 2 else "left",
        color=VALIDATION_COLOR,
        fontsize=9,
    )


def class_share_plot(
    shares: np.ndarray, classes: Sequence[str], palette: Palette, path: Path | str, *, title: str
) -> None:
    """Bars of each class's share of all pixels. shares: (C,) in 0..1."""
    labels = ["under 0.1 %" if 0 < share < 0.001 else percent(share, 1) for share in shares]
    labels = ["absent" if share == 0 else label for share, label in zip(shares, labels, strict=True)]
    _class_bars(100 * shares, labels, classes, palette, path, title=title, axis="share of pixels, %")


def iou_bars(ious: np.ndarray, classes: Sequence[str], palette: Palette, path: Path | str, *, title: str) -> None:
    """Bars of each class's IoU, (C,) in 0..1; nan (a class that is absent or left out) shows as a dash."""
    labels = ["–" if np.isnan(iou) else f"{iou:.3f}" for iou in ious]
    mean = float(np.nanmean(ious)) if np.isfinite(ious).any() else None
    _class_bars(np.nan_to_num(ious), labels, classes, palette, path, title=title, axis="IoU", line=mean)


def _class_bars(
    values: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[str],
    palette: Palette,
    path: Path | str,
    *,
    title: str,
    axis: str,
    line: float | None = None,
) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure((8, 1.2 + 0.34 * len(classes)), layout="constrained")
        axes = figure.subplots()
        positions = np.arange(len(classes))
        axes.barh(positions, values, 0.72, color=_rgb(palette), edgecolor="#00000022", linewidth=0.8)
        for position, value, label in zip(positions, values, labels, strict=True):
            note = axes.annotate(
                label, (value, position), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
            )
            note.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})
        if line is not None:
            axes.axvline(line, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.6)
            place: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"mean {line:.3f}", (line, -0.75), color=MUTED, fontsize=9, **place)
        axes.set_yticks(positions, [f"{name}  {index}" for index, name in enumerate(classes)], color=INK)
        axes.set(title=title, xlabel=axis, ylim=(len(classes) - 0.4, -1.1 if line is not None else -0.6))
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        axes.spines["left"].set_visible(False)
        _save(figure, path)


def confusion_picture(confusion: np.ndarray, classes: Sequence[str], path: Path | str, *, title: str) -> None:
    """The confusion matrix, (C, C) pixels of true class by predicted, each row in percent of its true class."""
    totals = confusion.sum(axis=1, keepdims=True)
    share = 100 * np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    # With very many classes there is room only for the colours.
    told = len(classes) <= MOST_TOLD
    side = 2.6 + 0.56 * min(len(classes), MOST_TOLD)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure((side + 0.6, side), layout="constrained")
        axes = figure.subplots()
        axes.imshow(share, cmap=HEAT, vmin=0, vmax=100)
        for row, found in enumerate(share if told else ()):
            for col, value in enumerate(found):
                if value >= 0.5:
                    weight = "bold" if row == col else "normal"
                    color = PAPER if value > 72 else INK
                    axes.text(
                        col, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color, fontweight=weight
                    )
        axes.xaxis.tick_top()
        if told:
            ticks = np.arange(len(classes))
            axes.set_xticks(ticks, classes, rotation=45, ha="left", rotation_mode="anchor", color=INK)
            names = [name if total else f"{name} (absent)" for name, total in zip(classes, totals[:, 0], strict=True)]
            axes.set_yticks(ticks, names, color=INK)
            axes.set_xticks(ticks[1:] - 0.5, minor=True)
            axes.set_yticks(ticks[1:] - 0.5, minor=True)
            axes.grid(which="minor", color=PAPER, linewidth=1.5)
        axes.tick_params(which="minor", size=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("true class" if told else "id of the true class")
        axes.set_xlabel("share of the true class's pixels called each class, % (under 0.5 left blank)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        _save(figure, path)


def sample_predictions(
    frames: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    classes: Sequence[str],
    palette: Palette,
    path: Path | str,
    *,
    titles: Sequence[str],
    unlabelled: int | None,
) -> None:
    """One row an image: the frame, its truth, the prediction, and where the two differ.

    Args:
        frames: each (H, W, 3) uint8 BGR; truths, predictions: each (H, W) uint8 of the frame's size.
        titles: a line over each frame.
        unlabelled: id whose true pixels count as neither right nor wrong.
    """
    rows = []
    for frame, truth, prediction in zip(frames, truths, predictions, strict=True):
        errors = error_picture(frame, truth, prediction, unlabelled)
        rows.append([frame, colorize(truth, palette), colorize(prediction, palette), errors])
    heads = ("image", "truth", "prediction", "errors (red)")
    _picture_grid(rows, heads, titles, classes, palette, path)


def error_picture(frame: np.ndarray, truth: np.ndarray, prediction: np.ndarray, unlabelled: int | None) -> np.ndarray:
    """The frame in pale grey, wrong pixels red and pixels without a truth darker; (H, W, 3) uint8 BGR."""
    pale = 150 + (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32) * 0.4).astype(np.uint8)
    picture = cv2.merge([pale, pale, pale])
    wrong = truth != prediction
    if unlabelled is not None:
        ignored = truth == unlabelled
        wrong &= ~ignored
        picture[ignored] //= 2
    picture[wrong] = (40, 40, 214)
    return picture


def annotation_samples(
    frames: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    small_frames: Sequence[np.ndarray],
    small_masks: Sequence[np.ndarray],
    classes: Sequence[str],
    palette: Palette,
    path: Path | str,
    *,
    titles: Sequence[str],
) -> None:
    """One row an image: its annotation in colours, the image, and both at the model's size."""
    rows = [
        [colorize(mask, palette), frame, small_frame, colorize(small_mask, palette)]
        for frame, mask, small_frame, small_mask in zip(frames, masks, small_frames, small_masks, strict=True)
    ]
    large = _size_text(masks[0]) if len({mask.shape for mask in masks}) == 1 else "as stored"
    small = _size_text(small_masks[0])
    heads = (f"annotation, {large}", f"image, {large}", f"image resized to {small}", f"annotation resized to {small}")
    _picture_grid(rows, heads, titles, classes, palette, path)


def class_masks(
    frame: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Palette, path: Path | str, *, title: str
) -> None:
    """One image, its annotation, and a panel for each class with that class's pixels alone."""
    columns = 4
    rows = -(-len(classes) // columns)
    panel_width, panel_height = 2.9, 2.9 * mask.shape[0] / mask.shape[1] + 0.34
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure((columns * panel_width, (rows + 1.85) * panel_height + 0.3), layout="constrained")
        figure.suptitle(_legible(title), x=0.008, ha="left", fontsize=12)
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=(2, *[1] * rows))
        _show(figure.add_subplot(grid[0, :2]), frame, "image")
        _show(figure.add_subplot(grid[0, 2:]), colorize(mask, palette), "annotation")
        for index, name in enumerate(classes):
            axes = figure.add_subplot(grid[1 + index // columns, index % columns])
            _show(axes, _one_class(mask, index, palette), f"{name}  ({index})")
            share = (mask == index).mean()
            note = percent(share, 1) if share >= 0.001 else "under 0.1 %" if share else "absent"
            axes.set_title(note, loc="right", fontsize=9, color=MUTED)
        _save(figure, path)


def _one_class(mask: np.ndarray, index: int, palette: Palette) -> np.ndarray:
    picture = np.full((*mask.shape, 3), 240, np.uint8)
    picture[mask == index] = palette[index][::-1]
    return picture


def _picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    heads: Sequence[str],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Palette,
    path: Path | str,
) -> None:
    """Rows of pictures with a head over each column, a title over each row, and the colours' names beneath."""
    widths = [picture.shape[1] / picture.shape[0] for picture in rows[0]]
    row_height = 2.5
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (row_height * sum(widths) + 0.3, (row_height + 0.36) * len(rows) + 0.8)
        figure = Figure(size, layout="constrained")
        grid = figure.subplots(len(rows), len(heads), squeeze=False, width_ratios=widths)
        for number, (panels, pictures, title) in enumerate(zip(grid, rows, titles, strict=True)):
            for axes, picture, head in zip(panels, pictures, heads, strict=True):
                _show(axes, picture, "")
                if number == 0:
                    # Above the heads is a line for the first row's title.
                    text = f"\n{head}" if title else head
                    axes.set_title(text, loc="center", x=0, ha="left", fontsize=10, color=MUTED)
            if title:
                _row_title(panels[0], _legible(title), lines=2 if number == 0 else 1)
        _legend(figure, classes, palette)
        _save(figure, path)


def _row_title(axes: Axes, title: str, *, lines: int) -> None:
    """A title over the first of a row's panels, on the upper of `lines` lines; a long one runs on over the others."""
    above: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 10}
    # Outside the layout, which would make room for its width beside the panel; an empty title keeps its height free.
    axes.annotate(title, xytext=(0, 6 + 11.5 * (lines - 1)), **above).set_in_layout(False)
    axes.set_title(" " * (lines == 1), loc="left", fontsize=10)


def _legible(name: str) -> str:
    """A title that can be drawn: bytes of a file's name that are not UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    """Show a BGR picture without axes. Class colours must not blend at the edges, hence no interpolation."""
    axes.imshow(picture[:, :, ::-1], interpolation="nearest", aspect="equal")
    axes.set_title(title)
    axes.set_axis_off()


def _legend(figure: Figure, classes: Sequence[str], palette: Palette) -> None:
    handles = [
        Patch(facecolor=color, edgecolor="#00000033", label=name)
        for color, name in zip(_rgb(palette), classes, strict=True)
    ]
    fitting = max(1, min(len(classes), int(figure.get_figwidth() / 1.05)))
    across = -(-len(classes) // -(-len(classes) // fitting))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=across,
        fontsize=9,
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
    )


def _rgb(palette: Palette) -> list[tuple[float, float, float]]:
    return [(red / 255, green / 255, blue / 255) for red, green, blue in palette]


def _size_text(labels: np.ndarray) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"


def _save(figure: Figure, path: Path | str) -> None:
    FigureCanvasAgg(figure)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
