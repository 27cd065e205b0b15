"""The machine's limits, the network's operations, and how near a row comes to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import environment, limits, probes
from benchmarks.benchmark import limit_notes, noise_notes
from benchmarks.operations import Layer, count_operations, gflop, limit_ms
from benchmarks.roofline import against_limits, best_limits
from benchmarks.rows import Row
from edge_seg import bundled_model
from edge_seg.errors import DeviceError, ModelFileError


def macs_of_fcn8(height, width, blocks, head, classes):
    """The count by hand, from the widths alone."""
    total, channels = 0, 3
    pixels = height * width
    skips = {}
    for block, (filters, count) in enumerate(zip(blocks, (2, 2, 3, 3, 3), strict=True), start=1):
        for _ in range(count):
            total, channels = total + 9 * channels * filters * pixels, filters
        pixels //= 4
        skips[block] = (pixels, channels)
    total += 49 * channels * head[0] * pixels + head[0] * head[1] * pixels
    total += head[1] * classes * 16 * pixels
    total += sum(size * filters * classes for size, filters in (skips[3], skips[4]))
    total += skips[4][0] * classes * classes * 4
    return total + skips[3][0] * classes * classes * 64


def test_operations_of_the_bundled_file_are_those_counted_by_hand():
    layers = count_operations(bundled_model(), (352, 480))
    assert sum(layer.macs for layer in layers) == macs_of_fcn8(352, 480, (64, 128, 256, 256, 256), (256, 256), 12)
    # All of the network's parameters but its biases.
    biases = 2 * 64 + 2 * 128 + 3 * 256 + 3 * 256 + 3 * 256 + 2 * 256 + 2 * 12
    assert sum(layer.weights for layer in layers) == 8_618_392 - biases


@pytest.mark.parametrize(
    ("operator", "given", "weight", "got", "macs"),
    [
        ("Conv", [1, 4, 8, 8], [6, 4, 3, 3], [1, 6, 8, 8], 64 * 6 * 4 * 9),
        ("ConvTranspose", [1, 4, 8, 8], [4, 6, 2, 2], [1, 6, 16, 16], 64 * 4 * 6 * 4),
        ("MatMul", [1, 7, 5], [5, 3], [1, 7, 3], 7 * 5 * 3),
        ("Gemm", [1, 5], [5, 3], [1, 3], 5 * 3),
    ],
)
def test_each_operator_counts(tmp_path, operator, given, weight, got, macs):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    options = {"Conv": {"pads": [1] * 4}, "ConvTranspose": {"strides": [2, 2]}}.get(operator, {})
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], **options)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, got)],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    (layer,) = count_operations(path, tuple(given[1:3]))
    assert (layer.macs, layer.weights) == (macs, np.prod(weight))


def test_a_file_in_which_nothing_multiplies_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    frames = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [frames], [])
    onnx.save(helper.make_model(graph), str(tmp_path / "none.onnx"))
    with pytest.raises(ModelFileError, match=r"none\.onnx: no layer of it multiplies"):
        count_operations(tmp_path / "none.onnx", (3, 8))


def test_memory_is_measured_beyond_the_caches_of_all_cores(tmp_path, monkeypatch):
    # Two sockets of two cores: each socket shares 256 MB of level 3.
    for core in range(4):
        for number, level, size, shared in ((0, 1, "32K", f"{core}"), (3, 3, "262144K", "0-1" if core < 2 else "2-3")):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{number}"
            folder.mkdir(parents=True)
            for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(text + "\n")
    assert environment.last_cache_mb(tmp_path) == 512
    assert environment.last_cache_mb(tmp_path / "none") == 0
    monkeypatch.setattr(environment, "last_cache_mb", lambda: 512.0)
    for memory, expected in ((512_000, 2048), (24_000, 1500), (1000, 192), (None, 192)):
        monkeypatch.setattr(environment, "memory_mb", lambda memory=memory: memory)
        assert limits.array_mb() == expected


def test_every_backend_that_may_compute_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda package: "9")
    assert environment.package_versions().keys() >= {"jax", "keras", "tensorflow", "torch"}


LAYERS = [Layer("computing", 10**9, 1000), Layer("reading", 1000, 10**9)]


def test_the_roofline_takes_the_longer_of_computing_and_reading():
    limit = {"gflops": 100.0, "bandwidth_gb_s": 10.0, "weight_bytes": 4}
    # 2 GFLOP at 100 a second: 20 ms; 4 GB at 10 a second: 400 ms, once a batch.
    assert limit_ms(LAYERS, batch=1, **limit) == pytest.approx(420, rel=1e-4)
    assert limit_ms(LAYERS, batch=4, **limit) == pytest.approx(120, rel=1e-4)
    assert limit_ms(LAYERS, batch=1, **{**limit, "weight_bytes": 1}) == pytest.approx(120, rel=1e-4)
    assert gflop(LAYERS) == pytest.approx(2.0, rel=1e-4)


@pytest.fixture
def row():
    return Row(
        name="a", kind="session", precision="int8", device="cpu", batch=1, model="m", arithmetic="int8", ms_median=50.0
    )


MACHINE = {
    "peaks": {"int8": {"gflops": 100.0, "reason": ""}, "bf16": {"gflops": None, "reason": "no such units"}},
    "bandwidth": {"best_gb_s": 100.0},
}


def test_a_row_is_set_against_the_peak_of_its_own_arithmetic(row):
    counted = {"m": [Layer("one", 10**9, 1000)]}
    found = against_limits(row, counted, MACHINE)
    assert (found.gflops, found.share_of_peak, found.share_of_limit) == pytest.approx((40.0, 0.4, 0.4))
    # Keras has no file of its own: the network is the same.
    assert against_limits(replace(row, model="run"), counted, MACHINE).share_of_peak == pytest.approx(0.4)
    for other in (replace(row, arithmetic="bf16"), replace(row, device="cuda:0")):
        found = against_limits(other, counted, MACHINE)
        assert (found.gflops, found.share_of_peak) == (pytest.approx(40.0), None)
    assert against_limits(replace(row, status="failed"), counted, MACHINE).gflops is None
    assert limit_notes(MACHINE, "") == ["no bf16 peak: no such units"]


def test_the_peak_is_the_best_library_and_the_others_are_told(monkeypatch):
    def slow(side):
        return "slow", "w", 1e6, lambda: sum(range(20000))

    def fast(side):
        return "fast", "w", 1e9, lambda: sum(range(20000))

    def absent(side):
        raise ImportError("no such module")

    found = limits.measure_peak((slow, fast, absent), 0.0, 8)
    assert found["library"] == "fast"
    assert [one["library"] for one in found["tried"]] == ["slow", "fast", "absent"]
    assert found["tried"][2]["reason"] == "no such module"
    nothing = limits.measure_peak((absent,), 0.0, 8)
    assert (nothing["gflops"], nothing["reason"]) == (None, "absent: no such module")


def test_the_better_of_two_measurements_counts():
    def measured(fp32, memory):
        return {"peaks": {"fp32": {"gflops": fp32}, "bf16": {"gflops": None}}, "bandwidth": {"best_gb_s": memory}}

    found = best_limits(measured(10.0, 5.0), measured(30.0, 4.0))
    assert (found["peaks"]["fp32"]["gflops"], found["bandwidth"]["best_gb_s"]) == (30.0, 5.0)
    assert found["peaks"]["bf16"]["gflops"] is None
    assert best_limits({"problem": "died"}, measured(1.0, 1.0)) == measured(1.0, 1.0)


def test_a_row_that_outruns_the_peak_makes_the_run_a_noisy_one(row):
    surroundings = {"cores": 2}
    assert noise_notes([replace(row, share_of_peak=0.9)], [], [], surroundings) == []
    (note,) = noise_notes([replace(row, share_of_peak=1.2)], [], [], surroundings)
    assert "outran the peak" in note


def test_an_arithmetic_the_processor_only_emulates_has_no_peak(monkeypatch):
    monkeypatch.setattr(probes, "cpu_features", lambda: ("avx2",))
    with pytest.raises(DeviceError, match="no such units"):
        probes.torch_bf16(64)


def test_this_machine_is_measured_and_its_figures_are_possible():
    found = limits.measure_limits(seconds=0.0, side=256, memory_mb=16)
    for name in ("fp32", "int8"):
        assert 0.1 < found["peaks"][name]["gflops"] < 1e6
        assert any(one["library"].startswith("onnxruntime") and one["gflops"] for one in found["peaks"][name]["tried"])
    assert 0.05 < found["bandwidth"]["best_gb_s"] < 1e5
    assert found["bandwidth"]["best_gb_s"] >= found["bandwidth"]["copy_gb_s"]
