"""What the `edge-seg` commands do: put the pieces together, print, and return the exit code. Knows nothing about
argparse beyond the options it is given. With `--json`, stdout carries one JSON object and nothing else; remarks go to
stderr.

An interruption amid an import may be lost, break the module or change the exit code, so imports of native code hold it
back.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import bundled_clip
from .arguments import model_named
from .console import put, put_json
from .phrases import counted
from .signals import held_back

if TYPE_CHECKING:
    from .modelfile import ModelHeader


def predict(options: argparse.Namespace) -> int:
    """`edge-seg predict`."""
    with held_back():
        from .predict_command import run_predict
    return run_predict(options)


def info(options: argparse.Namespace) -> int:
    """`edge-seg info`."""
    with held_back():
        from .modelfile import read_model_header

    header = read_model_header(model_named(options.model))
    facts = _info_facts(header)
    if options.json:
        put_json(facts)
        return 0
    for name, value in facts.items():
        for line in _fact_lines(name.replace("_", " "), value):
            # Anyone may have written the file, and terminals obey control characters.
            put("".join(letter if letter.isprintable() else "?" for letter in line))
    return 0


def verify(options: argparse.Namespace) -> int:
    """`edge-seg verify`."""
    with held_back():
        from .session import load_runtime
        from .verify import verify as verify_model

        load_runtime()
    report = verify_model(model_named(options.model), options.device)
    if options.json:
        put_json(report.to_dict())
    else:
        put(f"{report.model}: {counted(report.frames, 'golden frame')}")
        for verdict in report.verdicts:
            put(f"  {verdict.line()}")
        for name, reason in report.absent.items():
            put(f"  {name}: not here: {reason}")
    return 0 if report.passed else 1


def checks(options: argparse.Namespace) -> int:
    """`edge-seg checks`."""
    # It imports one library after the other, and says of each whether it loads.
    with held_back():
        from .checks import collect_checks

        report = collect_checks()
    if options.json:
        put_json(report.to_dict())
    else:
        put(*report.lines())
    return 1 if report.problems else 0


def demo(options: argparse.Namespace) -> int:
    """`edge-seg demo`: `predict` on the bundled clip, replacing an earlier result."""
    from .cli import build_parser

    arguments = ["predict", str(bundled_clip()), "--device", options.device, "--overwrite"]
    arguments += [f"--model={options.model}"] if options.model else []
    arguments += [f"--out={options.out}"] if options.out else []
    arguments += ["--json"] if options.json else []
    return predict(build_parser().parse_args(arguments))


def _info_facts(header: ModelHeader) -> dict[str, Any]:
    spec = header.spec
    return {
        "file": header.name,
        "name": spec.name,
        "license": spec.license,
        "precision": spec.precision,
        "exact_sums": spec.exact_sums,
        "input": f"frames uint8 (N, {_side(spec, 0)}, {_side(spec, 1)}, 3) {spec.color_order}",
        "outputs": list(spec.outputs),
        "scaling": spec.scaling,
        "resize": spec.resize,
        "label_resize": spec.label_resize,
        "classes": list(spec.classes),
        "palette_rgb": [list(color) for color in spec.palette],
        "unlabelled": spec.unlabelled,
        "parity": dict(spec.parity),
        "training": dict(spec.training),
        "versions": dict(spec.versions),
        "size_bytes": header.size_bytes,
        "nodes": header.contents.operators.total(),
        "opsets": {name or "ai.onnx": version for name, version in header.contents.opsets.items()},
        "ir_version": header.contents.ir_version,
        "producer": header.contents.producer,
        "sha256": header.sha256,
    }


def _fact_lines(name: str, value: Any, indent: str = "") -> Iterator[str]:
    """A name and its value on one line; the items of a dict follow, indented."""
    if isinstance(value, dict) and value:
        yield f"{indent}{name}"
        for key, item in value.items():
            yield from _fact_lines(str(key), item, indent + "  ")
    else:
        yield f"{indent + name:<24} {_fact(value)}"


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(" ".join(map(str, item)) if isinstance(item, list) else _fact(item) for item in value) or "-"
    return "-" if value in (None, "", {}) else str(value)


def _side(spec: Any, axis: int) -> str:
    return f"{'HW'[axis]}={spec.input_size[axis]}" if spec.dynamic_size else str(spec.input_size[axis])
