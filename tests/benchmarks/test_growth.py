"""Growth: each axis measured and kept, a looped clip frame by frame, memory over time, and the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import av
import cv2
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import growth
from benchmarks.cases import REFERENCE
from benchmarks.figures import growth_text
from benchmarks.growth_chart import draw_growth, noisy_points
from benchmarks.length import growth_of_memory, loop_clip
from benchmarks.suite import measure_batch
from edge_seg.errors import ConfigurationError
from edge_seg.spec import CAMVID_CLASSES
from train.fcn8 import Fcn8Config


@pytest.fixture
def fakes(monkeypatch, start_fake, run_folder, tiny_model, tmp_path):
    """The command with fake contenders in real workers; one dynamic model file stands for both."""
    config = {"fcn8": Fcn8Config().to_dict(), "classes": list(CAMVID_CLASSES)}
    (run_folder / "config.json").write_text(json.dumps(config))
    files = [tiny_model(dynamic=True, precision=name) for name in ("fp32", "int8")]
    monkeypatch.setattr(growth, "growing_files", lambda settings, digest, say: files)
    monkeypatch.setattr(growth, "measure_batch", partial(measure_batch, start=start_fake))
    monkeypatch.setattr(growth, "available_threads", lambda: 3)
    return ["growth", "--quick", "--run", str(run_folder), "--save", str(tmp_path / "growth.json")]


def test_axes_are_kept_beside_one_another(fakes, tmp_path, capsys):
    assert command.main([*fakes, "--axes", "batch"]) == 0
    assert command.main([*fakes, "--axes", "resolution", "--json"]) == 0
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert kept["axes"].keys() == {"batch", "resolution"}
    assert kept["parameters"] == 135_066_008
    assert kept["options"] == "--run run --batches 1,2 --sides 96,160 --minutes 0.05,0.2 --repeats 2 --frames 2"
    assert growth_text(kept).startswith(f"**Growth** (`python -m benchmarks growth {kept['options']}`), on ")
    for axis, values in (("batch", [1, 2]), ("resolution", [96, 160])):
        points = kept["axes"][axis]
        assert [(one["value"], one["name"]) for one in points] == [
            (value, name)
            for value in values
            for name in (REFERENCE, "Keras compiled", "edge_seg cpu fp32", "edge_seg cpu int8")
        ]
        assert {one["agreement"] for one in points} == {1.0}
        assert {one["batch"] for one in points} == ({1, 2} if axis == "batch" else {1})
    assert cv2.imread(str(tmp_path / "growth.png")).std() > 10


def test_points_of_another_machine_or_run_are_not_mixed(fakes, tmp_path, capsys):
    assert command.main([*fakes, "--axes", "threads"]) == 0
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert [one["value"] for one in kept["axes"]["threads"]][::4] == [1, 2, 3]
    other = {**kept, "environment": {**kept["environment"], "cpu": "Other CPU"}}
    for unlike, named in (
        (other, "another processor: Other CPU"),
        ({**kept, "size": [224, 224]}, "another size: [224, 224], here [352, 480]"),
        ({key: kept[key] for key in kept if key != "run"}, "another run: None"),
        ({**kept, "axes": {"threads": [{"value": 1, "name": "x", "status": "ok"}]}}, "cannot be drawn (KeyError"),
    ):
        (tmp_path / "growth.json").write_text(json.dumps(unlike))
        capsys.readouterr()
        assert command.main([*fakes, "--axes", "batch"]) == 2
        assert named in capsys.readouterr().err
        assert json.loads((tmp_path / "growth.json").read_text()) == unlike


def test_a_failure_is_named_and_counts_in_its_own_run_alone(fakes, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(growth, "measure_batch", failing(growth.measure_batch))
        assert command.main([*fakes, "--axes", "batch"]) == 1
    assert "failed: batch 2: edge_seg cpu int8: planted" in capsys.readouterr().err.splitlines()
    assert command.main([*fakes, "--axes", "threads"]) == 0
    kept = json.loads((tmp_path / "growth.json").read_text())["axes"]["batch"]
    assert [one["status"] for one in kept if one["name"] == "edge_seg cpu int8"] == ["failed", "failed"]


def failing(measure):
    """As `measure`, but the int8 file fails."""

    def measured(plan, batch, **given):
        found = measure(plan, batch, **given)
        rows = [
            replace(row, status="failed", reason="planted") if row.precision == "int8" else row for row in found.rows
        ]
        return replace(found, rows=rows)

    return measured


@pytest.mark.parametrize(
    ("save", "named"),
    [
        (".", "is a folder; name a JSON file with --save"),
        ("growth.png", "is what the picture is called"),
        ("file/growth.json", "is no folder to write to; choose another with --save"),
    ],
)
def test_a_file_that_cannot_be_is_told_before_anything_is_measured(fakes, save, named, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(growth, "measure_growth", lambda *_, **__: pytest.fail("it was measured"))
    assert command.main([*fakes, "--save", str(tmp_path / save)]) == 2
    assert named in capsys.readouterr().err


def test_threads_reach_the_contenders(fakes, tmp_path):
    settings = growth.GrowthSettings(run=tmp_path / "run")
    found = growth.growing_contenders(settings, "digest", (32, 64), 2, lambda _: None)
    assert {one.threads for one in found} == {2}
    assert {one.size for one in found} == {(32, 64)}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"kind": "growth", "format": 99}', '{"kind": "growth", "format": 1}'),
        '{"kind": "growth", "format": 1, "environment": {"cpu": "x"}, "axes": {}}',
        '{"kind": "growth", "format": 1, "environment": {"cpu": "x", "cores": 2}, "axes": {"batch": [{"value": 1}]}}',
        '{"kind": "growth", "format": 1, "environment": {"cpu": "x", "cores": 2}, "axes": []}',
        '{"kind": "growth", "format": 1, "environment": {"cpu": "x", "cores": 2}, "axes": {"batch": '
        '[{"value": "1", "name": "x", "status": "ok"}]}}',
        '{"kind": "growth", "format": 1, "environment": {"cpu": "x", "cores": 2}, "axes": {"batch": '
        '[{"value": 1, "name": ["x"], "status": "ok"}]}}',
        "[" * 100_000,
    ],
)
def test_another_file_is_no_growth_file(tmp_path, text):
    path = tmp_path / "growth.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"growth\.json is not a growth file.*--save"):
        growth.read_growth(path)


@pytest.mark.parametrize(
    "extra",
    [
        *(["--axes", "weather"], ["--minutes", "0"], ["--minutes", "x"], ["--stride", "0"], ["--sides", "x"]),
        *(["--fps", "0"], ["--fps", "nan"], ["--save", ""]),
    ],
)
def test_bad_words_are_refused_by_the_parser(extra, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["growth", *extra])
    assert caught.value.code == 2
    capsys.readouterr()


def test_a_looped_clip_is_its_frames_again_and_again(clip, tmp_path):
    looped = tmp_path / "looped.mp4"
    loop_clip(clip, 0.032, looped)  # 1.92 s: four rounds of 0.48 s
    with av.open(str(clip)) as container:
        once = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    with av.open(str(looped)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].duration * container.streams.video[0].time_base == pytest.approx(1.92)
    assert len(frames) == 48
    loop_clip(clip, 2.0, looped)  # hundreds of rounds: a duration scaled at each would overflow
    with av.open(str(looped)) as container:
        assert container.streams.video[0].frames == 3000
        assert max(packet.duration or 0 for packet in container.demux(video=0)) * container.streams.video[
            0
        ].time_base == pytest.approx(0.04)
    for index in (0, 11, 12, 30, 47):
        np.testing.assert_array_equal(frames[index].to_ndarray(format="bgr24"), once[index % 12])
    steps = np.diff([float(frame.time) for frame in frames])
    np.testing.assert_allclose(steps, 0.04, atol=1e-6)


def test_an_hour_may_have_fewer_frames(clip, tmp_path):
    loop_clip(clip, 0.4, tmp_path / "slow.mp4", fps=2.5)
    with av.open(str(tmp_path / "slow.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert len(times) == 60
    np.testing.assert_allclose(np.diff(times), 0.4, atol=1e-3)


def test_sides_are_what_the_network_takes(capsys):
    with pytest.raises(SystemExit):
        command.main(["growth", "--sides", "224,100"])
    assert "expected multiples of 32" in capsys.readouterr().err


def test_a_noisy_point_is_told_and_hollow(fakes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.environment.busy_core_s", iter(np.cumsum(np.full(99, 60.0))).__next__)
    assert command.main([*fakes, "--axes", "batch"]) == 0
    assert "NOISY: " in capsys.readouterr().err
    found = json.loads((tmp_path / "growth.json").read_text())
    points = found["axes"]["batch"]
    assert noisy_points(points, 2) == [point for point in points if point["status"] == "ok"]
    assert "points were noisy: hollow" in growth_text(found)
    calm = [{**point, "others_cores": None, "spread": 0.0} for point in points]
    assert noisy_points(calm, 2) == []


def test_what_was_measured_before_a_stop_is_kept(fakes, tmp_path, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(growth, "measure_lengths", stopped)
    assert command.main([*fakes, "--axes", "batch,length"]) == 1
    assert list(json.loads((tmp_path / "growth.json").read_text())["axes"]) == ["batch"]


def test_a_point_measured_again_replaces_the_one_kept():
    def one(value, ms, status="ok"):
        return {"value": value, "name": "a", "ms": ms, "status": status}

    kept = {"length": [one(1, 1), one(60, 2), one(90, 5, "failed")], "batch": []}
    found = {"length": [one(60, 3), one(10, 4), one(1, None, "failed"), one(90, 6), one(99, None, "failed")]}
    # A failure takes the place of no figures.
    assert [point["ms"] for point in growth.merged(kept, found)["length"]] == [1, 4, 3, 6, None]
    assert growth.merged(kept, found)["batch"] == []


def test_each_length_is_a_point_with_its_memory(clip, tiny_model, tmp_path, monkeypatch, start_fake):
    settings = growth.GrowthSettings(minutes=(0.008, 0.4), stride=5)
    monkeypatch.setattr(growth, "bundled_clip", lambda: clip)
    monkeypatch.setattr(growth, "bundled_model", tiny_model)
    short, longer = growth.measure_lengths(settings, tmp_path, lambda _: None, start_fake)
    assert (short["frames"], longer["frames"]) == (12, 600)
    assert longer["frames_per_s"] == pytest.approx(600 / longer["seconds"])
    assert 10 < longer["peak_mb"] < 2000
    assert not (tmp_path / "looped.mp4").exists()
    assert len((tmp_path / "looped.jsonl").read_text().splitlines()) == 600
    monkeypatch.setattr(growth, "bundled_model", lambda: tmp_path / "none.onnx")
    (failed,) = growth.measure_lengths(replace(settings, minutes=(0.008,)), tmp_path, lambda _: None, start_fake)
    assert failed["status"] == "failed"
    assert "none.onnx" in failed["reason"]


def test_growing_memory_is_told_from_flat():
    flat = growth_of_memory([(float(second), 300.0 if second > 3 else 100.0) for second in range(100)])
    assert (flat["early_mb"], flat["late_mb"]) == (300.0, 300.0)
    leaking = growth_of_memory([(float(second), 300.0 + second) for second in range(100)])
    assert leaking["late_mb"] - leaking["early_mb"] > 50
    assert len(growth_of_memory([(0.1 * n, 1.0) for n in range(5000)])["samples"]) <= 125
    assert growth_of_memory([])["late_mb"] is None


def test_the_picture_shows_what_there_is(tmp_path):
    length = {
        "axis": "length", "value": 1.0, "name": "edge_seg cpu int8", "precision": "int8", "status": "ok", "stride": 5,
        "frames": 1500, "seconds": 10.0, "peak_mb": 300.0, "samples": [[0.5, 200.0], [10.0, 300.0]],
    }  # fmt: skip
    one = {"axes": {"length": [length]}, "environment": {"cpu": "Test CPU", "cores": 2}}
    draw_growth(one, tmp_path / "one.png")
    steep = {**one, "axes": {"length": [{**length, "samples": [[0.5, 20.0], [10.0, 300.0]]}]}}
    draw_growth(steep, tmp_path / "steep.png")
    first, second = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "steep.png"))
    assert first.shape == second.shape
    assert (first != second).any()
