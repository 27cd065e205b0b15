"""verify proves what a device computes, and can fail: on labels planted wrong, on a wrong weight, on a wrong GPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_seg.errors import DeviceError, ModelFileError
from edge_seg.fake import FakeSession, brightness_labels
from edge_seg.spec import ModelSpec
from edge_seg.verify import judge_session, verify


def test_a_right_model_passes_and_the_report_says_how(tiny_model):
    report = verify(tiny_model(), "cpu")
    (verdict,) = report.verdicts
    assert report.passed
    assert verdict.passed
    assert (report.frames, verdict.device, verdict.arithmetic, verdict.bound) == (3, "cpu", "fp32", 0.9999)
    assert verdict.agreement > 0.9999
    assert "cpu: passed" in verdict.line()
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_labels_planted_wrong_fail(tiny_model):
    report = verify(tiny_model(golden="wrong"), "cpu")
    assert not report.passed
    assert "cpu: FAILED: 0.0000 % of pixels" in report.verdicts[0].line()


def test_one_weight_planted_wrong_fails(tiny_model):
    def disturb(model):
        from onnx import numpy_helper

        (kernel,) = (item for item in model.graph.initializer if item.name == "kernel")
        changed = numpy_helper.to_array(kernel).copy()
        changed[0, 0, 0, 0] += 0.5
        kernel.CopyFrom(numpy_helper.from_array(changed, "kernel"))

    report = verify(tiny_model(change=disturb), "cpu")
    assert not report.passed
    assert 0.5 < report.verdicts[0].agreement < 0.9999


def test_a_device_is_held_to_the_bound_of_its_own_arithmetic():
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    labels = brightness_labels(frames, 12)
    labels[0].flat[:6] += 1  # 6 of 2048 pixels: 99.7 % agree
    verdicts = {
        arithmetic: judge_session(FakeSession(ModelSpec(input_size=(32, 32)), arithmetic=arithmetic), frames, labels)
        for arithmetic in ("fp32", "bf16", "fp16", "int8")
    }
    assert {name: verdict.passed for name, verdict in verdicts.items()} == {
        "fp32": False,
        "bf16": True,
        "fp16": True,
        "int8": True,
    }
    assert verdicts["fp32"].worst_frame == pytest.approx(1 - 6 / 1024)


def test_a_lost_class_fails_a_device_whose_share_of_pixels_passes():
    frames = np.random.default_rng(0).integers(0, 120, (2, 32, 32, 3), np.uint8)
    frames[:, 0, :5] = 255  # half a percent of the pixels, all of the last class
    labels = brightness_labels(frames, 12)
    spec = ModelSpec(input_size=(32, 32), precision="int8")
    right = judge_session(FakeSession(spec, arithmetic="int8"), frames, labels)
    assert (right.passed, right.lost) == (True, ())
    blind = FakeSession(spec, labels=lambda batch: np.minimum(brightness_labels(batch, 12), 5), arithmetic="int8")
    verdict = judge_session(blind, frames, labels)
    assert verdict.agreement > verdict.bound
    assert not verdict.passed
    assert "fake: FAILED: 99.5" in verdict.line()
    assert "class unlabelled keeps an IoU of 0.00" in verdict.line()
    assert "Use a device that passes (--device)" in verdict.line()


def test_a_file_without_golden_frames_cannot_be_verified(tiny_model):
    with pytest.raises(ModelFileError, match="has no golden frames"):
        verify(tiny_model(golden=None), "cpu")


def test_a_named_device_that_is_absent_is_an_error(tiny_model, gpu_machine):
    gpu_machine.gpus = 0
    with pytest.raises(DeviceError, match="does not exist"):
        verify(tiny_model(), "cuda")


def test_all_tries_what_is_here_and_names_what_is_not(tiny_model, gpu_machine):
    gpu_machine.gpus = 2
    report = verify(tiny_model(), "all")
    assert [verdict.device for verdict in report.verdicts] == ["cpu", "cuda:0", "cuda:1", "tensorrt:0", "tensorrt:1"]
    assert report.passed
    assert set(report.absent) == {"openvino"}


def test_all_leaves_out_a_device_that_takes_no_such_file(tiny_model, gpu_machine):
    report = verify(tiny_model(precision="int8"), "all")
    assert [verdict.device for verdict in report.verdicts] == ["cpu", "cuda:0"]
    assert report.passed
    assert "int8 around zero alone" in report.absent["tensorrt:0"]


def test_one_wrong_device_of_several_fails_the_whole(tiny_model, gpu_machine):
    gpu_machine.wrong = True
    report = verify(tiny_model(), "all")
    assert {verdict.device: verdict.passed for verdict in report.verdicts} == {
        "cpu": True,
        "cuda:0": False,
        "tensorrt:0": False,
    }
    assert not report.passed


def test_a_present_device_that_breaks_is_a_verdict_and_the_rest_still_run(tiny_model, gpu_machine):
    gpu_machine.open_error = "CUDNN_STATUS_NOT_INITIALIZED"
    report = verify(tiny_model(), "all")
    assert not report.passed
    assert report.verdicts[0].passed
    assert "CUDNN_STATUS_NOT_INITIALIZED" in report.verdicts[1].line()
