"""int8: what is quantized and what is not, ranges frame by frame, and a graph the CPU provider runs as int8."""

import gc
import tracemalloc
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_seg.errors import ConfigurationError, ConversionError
from edge_seg.preprocess import scale_frames
from export import calibrate
from export.calibrate import Calibration, observe
from export.draft import Draft, write_draft
from export.passes import PROPERTIES
from export.quantize import SCORE_LAYERS, count_operators, quantize
from export.sums import exact_scales
from export.wrap import wrap
from train.fcn8 import logits_model

SIZE = (64, 96)
CONVOLUTIONS = 15  # 13 of VGG16, conv6 and conv7


@pytest.fixture(scope="module")
def wrapped(network) -> Draft:
    return wrap(network.fork(), size=SIZE)


@pytest.fixture(scope="module")
def quantized(wrapped, scenes, tmp_path_factory) -> Draft:
    draft, count = quantize(wrapped.fork(), iter(scenes[0]), tmp_path_factory.mktemp("q"), calibration=Calibration())
    assert count == len(scenes[0])
    return draft


@pytest.fixture(scope="module")
def optimized(quantized, tmp_path_factory) -> onnx.ModelProto:
    """The graph that onnxruntime's CPU provider really runs."""
    folder = tmp_path_factory.mktemp("optimized")
    write_draft(quantized, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def labels_of(draft: Draft, folder, frames) -> np.ndarray:
    draft.check()
    write_draft(draft, folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(["labels"], {"frames": frames})[0]


def test_every_heavy_convolution_runs_as_int8(optimized):
    operators = [node.op_type for node in optimized.graph.node]
    assert operators.count("QLinearConv") == CONVOLUTIONS
    assert operators.count("Conv") == len(SCORE_LAYERS)
    # No pair of Q and DQ is left between a convolution and its Relu, nor before the first.
    assert "QuantizeLinear" not in operators
    first = next(node for node in optimized.graph.node if "frames" in node.input)
    assert first.op_type in ("QLinearConv", "Transpose")


def test_relus_are_folded_and_frames_enter_as_bytes(quantized):
    names = {node.output[0] for node in quantized.nodes if node.op_type == "Relu"}
    assert names == {"pool3_conv.relu", "pool4_conv.relu"}
    first = next(node for node in quantized.nodes if "frames.planes" in node.input)
    assert first.op_type == "DequantizeLinear"
    scale, zero_point = (quantized.weights[name] for name in first.input[1:])
    assert (float(scale), int(zero_point)) == (1 / 128, 128)
    assert "Mul" not in count_operators(quantized)


def test_weights_have_a_scale_for_each_output_channel(quantized, network):
    kernels = {name: array for name, array in quantized.weights.items() if array.ndim == 4}
    small = {name for name, array in kernels.items() if array.dtype == np.int8}
    assert len(small) == CONVOLUTIONS
    assert len(kernels) == CONVOLUTIONS + len(SCORE_LAYERS)
    for node in quantized.nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in small:
            assert len(quantized.weights[node.input[1]]) == len(kernels[node.input[0]])


def test_biases_make_up_for_rounded_weights_on_average(wrapped, quantized, scenes):
    """By numpy alone, for the first convolution, whose input's means are the frames' own."""
    exact = next(node for node in wrapped.nodes if node.op_type == "Conv")
    kernel, bias = (wrapped.weights[name].astype(np.float64) for name in exact.input[1:3])
    rounded = next(node for node in quantized.nodes if node.op_type == "Conv")
    assert rounded.name == exact.name
    made = {node.output[0]: node.input for node in quantized.nodes if node.op_type == "DequantizeLinear"}
    (kernel_name, scales), (bias_name, bias_scales) = (made[name][:2] for name in rounded.input[1:3])
    weights = quantized.weights
    rounded_kernel = weights[kernel_name] * weights[scales].astype(np.float64)[:, None, None, None]
    rounded_bias = weights[bias_name] * weights[bias_scales].astype(np.float64)
    # Frames are (u - 127.5) / 128 before, (u - 128) / 128 in the int8 file.
    mean, shifted = ((scenes[0].mean((0, 1, 2), dtype=np.float64) - middle) / 128 for middle in (127.5, 128))
    wanted = kernel.sum((2, 3)) @ mean + bias
    away = np.abs(rounded_kernel.sum((2, 3)) @ shifted + rounded_bias - wanted).max()
    uncorrected = np.abs((rounded_kernel - kernel).sum((2, 3)) @ mean).max()
    assert away < 0.1 * uncorrected


def test_activations_are_unsigned_from_zero(quantized):
    zero_points = [quantized.weights[node.input[2]] for node in quantized.nodes if node.op_type == "QuantizeLinear"]
    assert len(zero_points) == CONVOLUTIONS + 5
    assert all(point.dtype == np.uint8 and int(point) == 0 for point in zero_points)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_each_calibration_keeps_most_labels(wrapped, model, scenes, tmp_path, method):
    expected = logits_model(model).predict_on_batch(scale_frames(scenes[0])).argmax(-1)
    draft, _ = quantize(wrapped.fork(), iter(scenes[0]), tmp_path, calibration=Calibration(method=method))
    assert (labels_of(draft, tmp_path, scenes[0]) == expected).mean() > 0.95


def test_no_pair_of_products_passes_16_bits(quantized):
    """By numpy alone, for every kernel as it is in the file."""
    kernels = [array.astype(int) for array in quantized.weights.values() if array.ndim == 4 and array.dtype == np.int8]
    assert len(kernels) == CONVOLUTIONS
    for kernel in kernels:
        rows = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
        step = 1 + (kernel.shape[1] % 2 == 0)
        for part in (np.maximum(rows, 0), np.minimum(rows, 0)):
            sums = 255 * (part[:, :-1:step] + part[:, 1::step])
            assert -(2**15) <= sums.min() <= sums.max() < 2**15


def test_a_kernel_whose_sums_are_cut_off_stops_the_export(quantized):
    draft = quantized.fork()
    name = next(name for name, array in draft.weights.items() if array.ndim == 4 and array.dtype == np.int8)
    assert PROPERTIES["exact int8 sums"](draft)
    draft.weights[name] = np.full_like(draft.weights[name], 65)
    assert not PROPERTIES["exact int8 sums"](draft)


def test_a_channel_pays_only_for_its_worst_pair():
    alone, alike, apart = np.zeros((3, 4, 1, 2), np.float32)
    alone[0, 0, 0] = 1.0
    alike[:2, 0, 0] = 1.0, 0.9
    apart[:2, 0, 0] = 1.0, -0.9
    scales = exact_scales(np.stack([alone, alike, apart]))
    np.testing.assert_allclose(1 / scales, [127, 128 / 1.9, 127], rtol=0.01)


def test_a_channel_of_zeros_has_a_scale_too():
    assert np.all(exact_scales(np.zeros((2, 3, 1, 1), np.float32)) > 0)


def test_the_runtime_computes_what_the_graph_says(quantized, scenes, tmp_path):
    """Optimized int8 against the same graph taken literally, in float: no processor cuts a sum off."""
    write_draft(quantized, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    expected = literal.run(["labels"], {"frames": scenes[0]})[0]
    assert (labels_of(quantized, tmp_path, scenes[0]) == expected).mean() > 0.999


def test_minmax_is_the_extremes_of_the_activations(wrapped, model, scenes, tmp_path):
    import keras

    ranges, _, count = observe(wrapped, ["block1_conv1.relu"], iter(scenes[0][:4]), Calibration(), tmp_path)
    layer = keras.Model(model.input, model.get_layer("block1_conv1").output)
    values = layer.predict_on_batch(scale_frames(scenes[0][:4]))
    np.testing.assert_allclose(ranges["block1_conv1.relu"], (values.min(), values.max()), atol=1e-5)
    assert count == 4
    assert not list(tmp_path.iterdir())


def test_percentile_cuts_what_minmax_keeps(wrapped, scenes, tmp_path):
    tensors = ["block1_conv1.relu", "conv6.relu"]
    widest, _, _ = observe(wrapped, tensors, iter(scenes[0]), Calibration(), tmp_path)
    cut, _, _ = observe(wrapped, tensors, iter(scenes[0]), Calibration(method="percentile", percentile=99.0), tmp_path)
    assert all(0 < cut[name][1] < widest[name][1] for name in tensors)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_frames_are_streamed(wrapped, tmp_path, method):
    """However many frames there are, no more than a few are alive at once."""
    alive = most = 0

    def gone():
        nonlocal alive
        alive -= 1

    def frames():
        nonlocal alive, most
        random = np.random.default_rng(0)
        for _ in range(20):
            frame = random.integers(0, 256, (*SIZE, 3), np.uint8)
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield frame

    _, _, count = observe(wrapped, ["conv7.relu"], frames(), Calibration(method=method), tmp_path)
    assert count == 20
    assert most <= 3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_memory_does_not_grow_with_the_frames(wrapped, tmp_path, method, monkeypatch):
    """onnxruntime's calibrators keep each frame's activations, 0.5 MB here, until the end.

    Counted: what Python and numpy hold, and what the session gave that somebody still holds. Not the process' resident
    memory: where earlier tests left much to the C library, that does not grow under a hoarder.
    """
    run, alive, kept, hoards = onnxruntime.InferenceSession.run, {}, [], False

    def watched(*arguments):
        values = run(*arguments)
        for value in values:
            alive[id(value)] = value.nbytes
            weakref.finalize(value, alive.pop, id(value))
        if hoards:
            kept.append(np.zeros(500_000, np.uint8))
        return values

    def grown(count=110):
        """Bytes more at the last frame than at the 10th."""
        random = np.random.default_rng(0)
        marks = []

        def frames():
            for index in range(count):
                if index in (10, count - 1):
                    gc.collect()
                    marks.append(tracemalloc.get_traced_memory()[0] + sum(alive.values()))
                yield random.integers(0, 256, (*SIZE, 3), np.uint8)

        tracemalloc.start()
        try:
            tensors = ["block1_conv1.relu", "block1_conv2.relu", "block2_conv2.relu"]
            observe(wrapped, tensors, frames(), Calibration(method=method), tmp_path)
        finally:
            tracemalloc.stop()
        return marks[1] - marks[0]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watched)
    assert grown() < 2e6
    hoards = True
    assert grown() > 30e6


def test_no_calibration_frames_is_an_error(wrapped, tmp_path):
    with pytest.raises(ConversionError, match="no calibration frames"):
        quantize(wrapped.fork(), iter(()), tmp_path, calibration=Calibration())


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_activations_that_are_not_finite_are_named(wrapped, scenes, tmp_path, method):
    draft = wrapped.fork()
    draft.weights["block2_conv1.bias"] = np.full_like(draft.weights["block2_conv1.bias"], np.inf)
    with pytest.raises(ConversionError, match=r"block2_conv1\.relu.*not finite"):
        quantize(draft, iter(scenes[0][:1]), tmp_path, calibration=Calibration(method=method))


@pytest.mark.parametrize("method", ["percentile", "entropy"])
@pytest.mark.parametrize("dark", [1e-2, 1e-6, 1e-30])
def test_a_dark_first_frame_makes_no_endless_histogram(monkeypatch, method, dark):
    """A first frame whose values are next to nothing sets bins of which later frames would need millions."""
    random = np.random.default_rng(3)
    frames = [np.maximum(random.standard_normal(4000), 0).astype(np.float32) for _ in range(4)]
    found = []
    for first in (frames[0], np.float32(dark) * frames[0]):
        histograms = calibrate._Histograms(
            ["x"], Calibration(method=method, percentile=99.0) if method == "percentile" else Calibration(method=method)
        )
        for values in (first, *frames[1:]):
            histograms.add([values])
        counts, edges, *_ = histograms._collector.histogram_dict["x"]
        assert counts.sum() == 4 * 4000
        assert calibrate.BINS[method] <= len(counts) == len(edges) - 1 <= calibrate.MOST_GROWTH * calibrate.BINS[method]
        found.append(histograms.ranges()["x"])
    assert found[1] == pytest.approx(found[0], rel=0.2, abs=0.1)


def test_the_record_of_a_calibration_holds_what_played_a_part():
    assert Calibration().to_dict() == {"method": "minmax", "frames": 64}
    exact = Calibration(method="percentile", frames=3, percentile=99.5).to_dict()
    assert exact == {"method": "percentile", "frames": 3, "percentile": 99.5}


@pytest.mark.parametrize("options", [{"method": "guess"}, {"frames": 0}, {"percentile": 12.0}, {"percentile": 101.0}])
def test_impossible_calibrations_are_refused(options):
    with pytest.raises(ConfigurationError, match="calibration"):
        Calibration(**options)
