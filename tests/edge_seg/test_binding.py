"""Runs through bound buffers, on a fake GPU: it shows what is asked of one, not that a real one does it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from edge_seg.session import open_session


def frames(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_batches_go_through_pinned_memory_to_fixed_buffers(tiny_model, tiny_reference, gpu_machine):
    opened = open_session(tiny_model(outputs=("labels", "confidence")), device="cuda", batch_size=3)
    for seed in range(3):
        found = opened.run(frames(3, seed))
        np.testing.assert_array_equal(found["labels"], tiny_reference(frames(3, seed), 12))
        assert found["confidence"].dtype == np.float16
    assert set(gpu_machine.copies) == {("pinned", "cuda")}


def test_without_pinned_memory_labels_are_the_same(tiny_model, tiny_reference, gpu_machine):
    gpu_machine.pinned = False
    opened = open_session(tiny_model(), device="cuda", batch_size=2)
    np.testing.assert_array_equal(opened.run(frames(2))["labels"], tiny_reference(frames(2), 12))
    assert gpu_machine.copies == []


def test_two_batches_have_buffers_of_their_own(tiny_model, tiny_reference, gpu_machine):
    opened = open_session(tiny_model(), device="cuda", batch_size=2)
    assert opened.runs_at_once == 2
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(20):
            if not np.array_equal(opened.run(frames(2, seed))["labels"], expected[seed]):
                wrong.append(seed)

    expected = [tiny_reference(frames(2, seed), 12) for seed in range(6)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert gpu_machine.at_once.most <= 2


def test_one_frame_at_a_time_is_a_captured_graph(tiny_model, tiny_reference, gpu_machine):
    opened = open_session(tiny_model(), device="cuda")
    ((_, options),) = gpu_machine.asked[-1]
    assert (options["enable_cuda_graph"], opened.runs_at_once) == ("1", 1)
    for count in (1, 4):
        np.testing.assert_array_equal(opened.run(frames(count))["labels"], tiny_reference(frames(count), 12))
    assert set(gpu_machine.batch_sizes) == {1}, "a captured graph replays its one shape"
    with pytest.raises(ConfigurationError, match=r"\(32, 64\); got \(64, 64\)"):
        opened.run(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_graph_that_cannot_be_captured_is_left_out_and_said(tiny_model, tiny_reference, gpu_machine):
    gpu_machine.graph_error = "CUDA error 901: operation failed due to a previous error during capture"
    opened = open_session(tiny_model(), device="cuda")
    (first,), (second,) = gpu_machine.asked
    assert "enable_cuda_graph" in first[1]
    assert "enable_cuda_graph" not in second[1]
    assert "no CUDA graph (CUDA error 901" in opened.device.reason
    np.testing.assert_array_equal(opened.run(frames(1))["labels"], tiny_reference(frames(1), 12))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_buffers_that_cannot_be_bound_are_done_without_and_said(tiny_model, tiny_reference, gpu_machine, batch_size):
    gpu_machine.binding_error = "no allocator for this device"
    opened = open_session(tiny_model(), device="cuda", batch_size=batch_size)
    assert "no bound buffers (no allocator for this device)" in opened.device.reason
    assert opened.runs_at_once == 1
    found = opened.run(frames(batch_size))["labels"]
    np.testing.assert_array_equal(found, tiny_reference(frames(batch_size), 12))


def test_tensorrt_captures_its_own_graph(tiny_model, gpu_machine):
    open_session(tiny_model(), device="tensorrt")
    (_, tensorrt), (_, cuda) = gpu_machine.asked[-1]
    assert tensorrt["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in cuda


def test_larger_batches_have_no_graph(tiny_model, gpu_machine):
    open_session(tiny_model(), device="cuda", batch_size=2)
    ((_, options),) = gpu_machine.asked[-1]
    assert "enable_cuda_graph" not in options


@pytest.mark.parametrize(("precision", "layout"), [("fp32", None), ("fp16", "1")])
def test_fp16_is_channels_last_and_no_search_stalls(tiny_model, gpu_machine, precision, layout):
    open_session(tiny_model(precision=precision), device="cuda", batch_size=2)
    ((_, options),) = gpu_machine.asked[-1]
    assert (options.get("prefer_nhwc"), options["cudnn_conv_algo_search"]) == (layout, "HEURISTIC")
