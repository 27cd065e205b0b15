"""Runs through bound buffers, on a fake GPU: it shows what is asked of one, not that a real one does it."""

from __future__ import annotations

import concurrent.futures.thread
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_seg import providers
from edge_seg.errors import ConfigurationError, DeviceError
from edge_seg.segmenter import Segmenter
from edge_seg.session import open_session


def frames(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_batches_go_through_pinned_memory_to_fixed_buffers(tiny_model, tiny_reference, gpu_machine):
    opened = open_session(tiny_model(outputs=("labels", "confidence")), device="cuda", batch_size=3)
    for seed in range(3):
        found = opened.run(frames(3, seed))
        np.testing.assert_array_equal(found["labels"], tiny_reference(frames(3, seed), 12))
        assert found["confidence"].dtype == np.float16
    assert len(gpu_machine.locked) == 2, "a set of buffers for each run at once"
    assert all(any(array is one for one in gpu_machine.locked) for array in gpu_machine.uploaded)


def test_without_pinned_memory_labels_are_the_same(tiny_model, tiny_reference, gpu_machine):
    gpu_machine.pinned = False
    opened = open_session(tiny_model(), device="cuda", batch_size=2)
    np.testing.assert_array_equal(opened.run(frames(2))["labels"], tiny_reference(frames(2), 12))
    assert gpu_machine.locked == []


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


def test_a_graph_is_replayed_by_the_thread_that_captured_it_whoever_asks(tiny_model, tiny_reference, gpu_machine):
    opened = open_session(tiny_model(), device="cuda")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda seed: opened.run(frames(1, seed))["labels"], range(12)))
    for seed, labels in enumerate(found):
        np.testing.assert_array_equal(labels, tiny_reference(frames(1, seed), 12))


def test_a_session_whose_graph_failed_is_gone_before_the_next_opens(tiny_model, gpu_machine, monkeypatch):
    """Its memory is the GPU's, and what it half captured stands in the way of the next."""
    alive = []
    bind = providers._bind

    def watched(ort, inner, *args, **options):
        assert not [one for one in alive if one() is not None]
        alive.append(weakref.ref(inner))
        return bind(ort, inner, *args, **options)

    monkeypatch.setattr(providers, "_bind", watched)
    gpu_machine.graph_error = "CUDA error 901"
    assert "no CUDA graph" in open_session(tiny_model(), device="cuda").device.reason
    assert len(alive) == 2


def test_a_captured_graph_outlives_the_main_thread(tiny_model, gpu_machine):
    """A worker that goes on when the main thread has ended, in this process: an executor would refuse it."""
    opened = open_session(tiny_model(), device="cuda")
    with_closed_executors = concurrent.futures.thread._shutdown
    concurrent.futures.thread._shutdown = True
    try:
        assert opened.run(frames(1))["labels"].shape == (1, 32, 64)
        opened = open_session(tiny_model(), device="cuda", batch_size=2)
        assert (opened.runs_at_once, opened.whole_batches) == (2, True)
    finally:
        concurrent.futures.thread._shutdown = with_closed_executors


def test_the_graphs_thread_ends_with_its_session(tiny_model, gpu_machine):
    opened = open_session(tiny_model(), device="cuda")
    (thread,) = [one for one in threading.enumerate() if one.name == "edge_seg graph"]
    opened.close()
    del opened
    gc.collect()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_two_runs_at_once_are_warmed_up_at_once(tiny_model, gpu_machine, monkeypatch):
    both = threading.Barrier(2)
    # The very first run tries the session out, alone.
    monkeypatch.setattr(gpu_machine.at_once, "enter", lambda: gpu_machine.batch_sizes and both.wait(timeout=20))
    monkeypatch.setattr(gpu_machine.at_once, "leave", lambda: None)
    open_session(tiny_model(), device="cuda", batch_size=2)
    assert gpu_machine.batch_sizes == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_where_cudnns_own_choice_fails_every_algorithm_is_tried(tiny_model, gpu_machine, batch_size):
    gpu_machine.fails_by = {"cudnn_conv_algo_search": "HEURISTIC"}
    opened = open_session(tiny_model(), device="cuda", batch_size=batch_size)
    assert "convolutions searched for" in opened.device.reason
    ((_, options),) = gpu_machine.asked[-1]
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert ("enable_cuda_graph" in options) == (batch_size == 1)
    frames = np.zeros((batch_size, 32, 64, 3), np.uint8)
    assert opened.run(frames)["labels"].shape == (batch_size, 32, 64)


def test_for_want_of_memory_nothing_is_searched():
    asked = []

    def make(search: str) -> None:
        asked.append(search)
        raise RuntimeError("CUDNN_STATUS_ALLOC_FAILED")

    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        providers.searched(make)
    assert asked == ["HEURISTIC"]


def test_a_layer_that_no_algorithm_computes_is_one_error(tiny_model, gpu_machine):
    gpu_machine.fails_by = {"device_id": "0"}
    with pytest.raises(DeviceError, match=r"cuda:0 cannot run .*Failed to initialize CUDNN Frontend"):
        open_session(tiny_model(), device="cuda", batch_size=2)
    assert len(gpu_machine.asked) == 2


def test_larger_batches_have_no_graph(tiny_model, gpu_machine):
    open_session(tiny_model(), device="cuda", batch_size=2)
    ((_, options),) = gpu_machine.asked[-1]
    assert "enable_cuda_graph" not in options


@pytest.mark.parametrize(("precision", "layout", "tf32"), [("fp32", None, "0"), ("fp16", "1", None)])
def test_fp16_has_the_tensor_cores_and_their_layout_and_fp32_its_bits(tiny_model, gpu_machine, precision, layout, tf32):
    open_session(tiny_model(precision=precision), device="cuda", batch_size=2)
    ((_, options),) = gpu_machine.asked[-1]
    assert (options.get("prefer_nhwc"), options.get("use_tf32")) == (layout, tf32)
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_an_int8_file_is_asked_for_without_its_pairs_and_cuda_says_what_it_does(tiny_model, gpu_machine):
    opened = open_session(tiny_model(precision="int8"), device="cuda", batch_size=2)
    assert gpu_machine.entries == [
        {"session.disable_quant_qdq": "1", "session.disable_cpu_ep_fallback": "1"},
    ]
    assert "CUDA multiplies an int8 file in float32" in opened.device.reason


def test_tensorrt_refuses_an_int8_file_and_auto_passes_it_over(tiny_model, gpu_machine):
    path = tiny_model(precision="int8")
    with pytest.raises(DeviceError, match=r"TensorRT takes int8 around zero alone.*--precision fp16"):
        open_session(path, device="tensorrt")
    assert gpu_machine.asked == []
    assert open_session(path).device.name == "cuda:0"


def test_auto_takes_the_gpu_at_another_size_than_the_files_own(gpu_machine, tiny_model):
    """A captured graph would take that one size alone, and not the golden frames."""
    with Segmenter(tiny_model(dynamic=True), device="auto", input_size=(64, 96)) as segmenter:
        assert segmenter.device.name == "cuda:0", segmenter.device.reason
