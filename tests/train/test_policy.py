"""The precision chosen where nobody says one."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from train import policy


@pytest.mark.parametrize(
    ("gpus", "flags", "expected"),
    [
        ([], "fpu avx2 amx_bf16", "mixed_bfloat16"),
        ([], "fpu avx512_bf16", "mixed_bfloat16"),
        ([], "fpu avx2 avx512f", "float32"),
        ([(9, 0)], "fpu avx2", "mixed_bfloat16"),
        ([(8, 0), (7, 5)], "fpu amx_bf16", "float32"),
        ([(0, 0)], "fpu amx_bf16", "float32"),
    ],
)
def test_what_trains_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: list[tuple[int, int]], flags: str, expected: str
) -> None:
    monkeypatch.setattr(policy, "gpu_capabilities", lambda: gpus)
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert policy.auto_policy(tmp_path / "cpuinfo") == expected


def test_a_system_that_tells_nothing_trains_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(policy, "gpu_capabilities", list)
    assert policy.auto_policy(tmp_path / "none") == "float32"


def test_a_gpu_that_tensorflow_sees_is_asked_for_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    details = {"a": {"compute_capability": (9, 0)}, "b": {}}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert policy.gpu_capabilities() == [(9, 0), (0, 0)]


def test_what_keras_computes_in_is_as_before_whatever_happens():
    before = keras.mixed_precision.dtype_policy().name

    @policy.policy_kept()
    def stopped() -> None:
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert keras.mixed_precision.dtype_policy().name == before
