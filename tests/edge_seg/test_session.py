"""Sessions: a named device is a promise, `auto` proves before it chooses, and every failure says what mends it."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_seg import checks, devices, ort_session, session, tensorrt, versions
from edge_seg.errors import ConfigurationError, DeviceError, MissingDependencyError, ModelFileError, OutOfMemoryError
from edge_seg.fake import FakeSession
from edge_seg.modelfile import read_model_header
from edge_seg.proof import open_first_proved
from edge_seg.session import open_session
from edge_seg.spec import ModelSpec

NO_GPU = devices.nvidia_gpus() in (None, 0)


def frames(count: int = 2, size: tuple[int, int] = (32, 64)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


def test_cpu_gives_the_models_labels_and_reports_itself(tiny_model, tiny_reference):
    opened = open_session(tiny_model(), device="cpu", threads=1)
    batch = frames(5)
    assert np.mean(opened.run(batch)["labels"] == tiny_reference(batch, 12)) > 0.9999
    report = opened.device
    assert (report.requested, report.name, report.providers) == ("cpu", "cpu", ("CPUExecutionProvider",))
    assert (report.arithmetic, report.threads, report.reason) == ("fp32", 1, "asked for by name")


def test_opening_on_the_cpu_runs_nothing(tiny_model, monkeypatch):
    """A short clip would pay for it, and there is nothing to tune."""
    runs: list[int] = []
    monkeypatch.setattr("edge_seg.ort_session.OrtSession.run", lambda self, batch: runs.append(len(batch)))
    open_session(tiny_model(), device="cpu")
    open_session(tiny_model())
    assert runs == []


def test_bytes_and_path_are_the_same_model(tiny_model):
    path = tiny_model()
    one, other = open_session(path, device="cpu"), open_session(path.read_bytes(), device="cpu")
    np.testing.assert_array_equal(one.run(frames())["labels"], other.run(frames())["labels"])


def test_a_models_name_may_be_any_that_the_disk_takes(tiny_model):
    path = tiny_model()
    try:
        odd = path.rename(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9.onnx"))
    except OSError:
        pytest.skip("this disk takes text alone")
    assert open_session(odd, device="cpu").run(frames())["labels"].shape == (2, 32, 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_cpu_report_names_the_files_arithmetic(tiny_model, precision):
    assert open_session(tiny_model(precision=precision), device="cpu").device.arithmetic == precision


@pytest.mark.parametrize("device", ["gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:1000", "openvino:1", "", "CPU", None])
def test_an_unknown_device_is_a_wrong_call(tiny_model, device):
    with pytest.raises(ConfigurationError, match="auto, cpu, openvino"):
        open_session(tiny_model(), device=device)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 1.5}, {"batch_size": True}, {"batch_size": 10**6}, {"threads": 0}]
)
def test_impossible_options_are_wrong_calls(tiny_model, options):
    with pytest.raises(ConfigurationError, match="whole number"):
        open_session(tiny_model(), device="cpu", **options)


def test_size_is_fixed_unless_the_model_says_otherwise(tiny_model):
    with pytest.raises(ConfigurationError, match=r"32x64 .*only; got 64x64"):
        open_session(tiny_model(), device="cpu", input_size=(64, 64))
    dynamic = tiny_model(dynamic=True)
    opened = open_session(dynamic, device="cpu", input_size=(64, 96))
    assert opened.run(frames(1, (64, 96)))["labels"].shape == (1, 64, 96)
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        open_session(dynamic, device="cpu", input_size=(33, 64))


def test_a_batch_of_another_kind_is_named(tiny_model):
    opened = open_session(tiny_model(), device="cpu")
    with pytest.raises(ConfigurationError, match="float32"):
        opened.run(frames().astype(np.float32))
    with pytest.raises(ConfigurationError, match=r"\(32, 64\); got \(64, 64\)"):
        opened.run(frames(1, (64, 64)))


def test_closed_twice_and_used_after(tiny_model):
    opened = open_session(tiny_model(), device="cpu")
    opened.close()
    opened.close()
    with pytest.raises(ConfigurationError, match="closed"):
        opened.run(frames())


def test_a_session_cannot_be_pickled_and_says_the_cure(tiny_model):
    with pytest.raises(ConfigurationError, match="Pass the model's path"):
        pickle.dumps(open_session(tiny_model(), device="cpu"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_that_ends_as_programs_do_takes_nothing_apart(tiny_model):
    """Sessions and decoders hold threads that did not come along; to destroy them would wait for ever."""
    program = (
        "import os, sys, numpy as np\n"
        "from edge_seg import Segmenter, bundled_clip\n"
        "from edge_seg.sources import open_source\n"
        f"segmenter = Segmenter({str(tiny_model())!r}, device='cpu')\n"
        "segmenter.segment(np.zeros((32, 64, 3), np.uint8))\n"
        "source = open_source(bundled_clip())\n"
        "next(iter(source))\n"
        "child = os.fork()\n"
        "if not child: sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_gets_an_error_instead_of_a_hang(tiny_model):
    opened = open_session(tiny_model(), device="cpu")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            opened.run(frames())
        except DeviceError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert 'get_context("spawn")' in pipe.read()
    assert opened.run(frames())["labels"].shape == (2, 32, 64)


def test_threads_share_a_session(tiny_model):
    opened = open_session(tiny_model(), device="cpu")
    batches = [np.random.default_rng(seed).integers(0, 256, (2, 32, 64, 3), np.uint8) for seed in range(8)]
    expected = [opened.run(batch)["labels"] for batch in batches]
    wrong: list[int] = []

    def work(position: int) -> None:
        for _ in range(20):
            if not np.array_equal(opened.run(batches[position])["labels"], expected[position]):
                wrong.append(position)

    threads = [threading.Thread(target=work, args=(position,)) for position in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_newer_opset_names_both_versions_and_the_cure(tiny_model):
    def newer(model):
        model.opset_import[0].version = 99

    with pytest.raises(
        ModelFileError, match=r"opset 99; onnxruntime [\d.]+ reads up to \d+\. .*pip install -U.*--opset \d+ at most\."
    ):
        open_session(tiny_model(change=newer), device="cpu")


def test_a_newer_ir_version_names_both_versions_and_the_cure(tiny_model):
    def newer(model):
        model.ir_version = 77

    with pytest.raises(ModelFileError, match=r"IR version 77; onnxruntime [\d.]+ reads up to \d+\. .*pip install -U"):
        open_session(tiny_model(change=newer), device="cpu")


def test_a_graph_that_breaks_its_metadatas_promise_is_refused(tiny_model):
    def rename(model):
        model.graph.input[0].name = model.graph.node[0].input[0] = "image"

    with pytest.raises(ModelFileError, match="Cast reads 'image', which nothing before it makes"):
        open_session(tiny_model(change=rename), device="cpu")

    def add(model):
        model.graph.input.add().CopyFrom(model.graph.input[0])
        model.graph.input[1].name = "depth"

    with pytest.raises(ModelFileError, match="expected one input, frames"):
        open_session(tiny_model(change=add), device="cpu")

    def promise(model):
        from onnx import helper

        helper.set_model_props(model, ModelSpec(input_size=(32, 32)).to_metadata())

    with pytest.raises(ModelFileError, match="its metadata promises"):
        open_session(tiny_model(change=promise), device="cpu")


def test_a_missing_output_is_named(tiny_model):
    def promise(model):
        from onnx import helper

        helper.set_model_props(model, ModelSpec(input_size=(32, 64), outputs=("labels", "confidence")).to_metadata())

    with pytest.raises(ModelFileError, match="labels, confidence"):
        open_session(tiny_model(change=promise), device="cpu")


@pytest.mark.parametrize("change", ["replaced", "rewritten", "gone"])
def test_a_file_that_changes_between_the_look_and_the_opening_is_refused(tiny_model, monkeypatch, change):
    path, other = tiny_model(), tiny_model(golden=None)
    right = session.make_inner

    def late(ort, plan, device):
        if change == "replaced":
            os.replace(other, path)
            return right(ort, plan, device)
        made = right(ort, plan, device)
        path.write_bytes(b"other bytes") if change == "rewritten" else path.unlink()
        return made

    monkeypatch.setattr(session, "make_inner", late)
    with pytest.raises(ModelFileError, match=f"{path} was replaced or changed .* Open it again"):
        open_session(path, device="cpu")


def test_a_graph_of_a_fixed_batch_takes_that_batch(tiny_model):
    fixed = tiny_model(batch=2)
    with pytest.raises(ConfigurationError, match="exactly 2; got batch_size=1"):
        open_session(fixed, device="cpu")
    assert open_session(fixed, device="cpu", batch_size=2).run(frames(2))["labels"].shape == (2, 32, 64)


def test_a_graph_the_runtime_refuses_is_a_model_error(tiny_model):
    def double(model):
        from onnx import numpy_helper

        (kernel,) = (item for item in model.graph.initializer if item.name == "kernel")
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel).astype(np.float64), "kernel"))

    with pytest.raises(ModelFileError, match=r"cannot be opened: .*Export it again"):
        open_session(tiny_model(change=double), device="cpu")


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_gpu_that_is_not_there_is_never_answered_by_the_cpu(tiny_model, device):
    with pytest.raises(DeviceError, match=r"cannot be had: .*(driver|built without|does not exist)"):
        open_session(tiny_model(), device=device)


def test_openvino_is_openvino_or_a_reason(tiny_model):
    path = tiny_model()
    problem = devices.device_problem(session.load_runtime(), devices.parse_device("openvino"))
    if not problem:
        opened = open_session(path, device="openvino", batch_size=2)
        assert opened.device.providers[0] == "OpenVINOExecutionProvider"
        assert opened.run(frames())["labels"].shape == (2, 32, 64)
        return
    with pytest.raises(DeviceError) as caught:
        open_session(path, device="openvino")
    assert problem in str(caught.value)


# The GPU is played by `gpu_machine`: it shows what we make of its answers, not that a real one gives them.


def test_cuda_is_asked_for_strictly_and_without_tf32(tiny_model, gpu_machine, capfd):
    opened = open_session(tiny_model(), device="cuda", batch_size=3)
    ((provider, options),) = gpu_machine.asked[0]
    assert (provider, options["use_tf32"], options["device_id"]) == ("CUDAExecutionProvider", "0", "0")
    assert (opened.device.name, opened.device.arithmetic) == ("cuda:0", "fp32")
    assert gpu_machine.batch_sizes == [3] + [3] * 4, "tried out, then warmed up twice at the full shape by two at once"
    assert capfd.readouterr() == ("", "")


def test_a_session_that_came_back_on_the_cpu_is_an_error(tiny_model, gpu_machine):
    gpu_machine.silent_cpu = True
    with pytest.raises(
        DeviceError, match=r"got CPUExecutionProvider instead of CUDA.*pip install 'onnxruntime-gpu\[cuda,cudnn\]'"
    ):
        open_session(tiny_model(), device="cuda")


def test_light_operators_may_stay_on_the_cpu_and_are_named(tiny_model, gpu_machine):
    gpu_machine.left_on_cpu = ("ArgMax",)
    assert "1 light nodes run elsewhere: ArgMax" in open_session(tiny_model(), device="cuda").device.reason


def test_a_convolution_on_the_cpu_breaks_the_promise(tiny_model, gpu_machine):
    gpu_machine.left_on_cpu = ("ArgMax", "Conv")
    with pytest.raises(DeviceError, match="does not take Conv"):
        open_session(tiny_model(), device="cuda")


def test_out_of_memory_is_typed_and_names_the_batch(tiny_model, gpu_machine):
    gpu_machine.memory_frames = 4
    with pytest.raises(OutOfMemoryError, match=r"cuda:0 has no memory for 10 frames of 64x32.*smaller batch") as caught:
        open_session(tiny_model(), device="cuda", batch_size=10)
    assert isinstance(caught.value, (MemoryError, DeviceError))
    assert str(caught.value).endswith("A batch of 2 fits: --batch 2.")
    asked = [10, 10, 10, 5, 5, 2, 2, 2, 2]
    assert gpu_machine.batch_sizes == asked, "tried out, then by two at once, twice where it fits"
    gpu_machine.memory_frames = 0
    with pytest.raises(OutOfMemoryError, match=r"or --device cpu\.$"):
        open_session(tiny_model(), device="cuda", batch_size=2)
    gpu_machine.memory_frames = 4
    opened = open_session(tiny_model(), device="cuda", batch_size=4)
    with pytest.raises(OutOfMemoryError, match="no memory for 6 frames"):
        opened.run(frames(6))


def test_a_smaller_batch_that_fails_for_another_reason_is_not_the_error_that_is_told(tiny_model, gpu_machine):
    gpu_machine.memory_frames, gpu_machine.fails_at = 5, 5
    with pytest.raises(OutOfMemoryError, match=r"no memory for 10 frames.*A batch of 2 fits: --batch 2\.$"):
        open_session(tiny_model(), device="cuda", batch_size=10)


def test_no_driver_no_such_gpu_and_no_cuda_in_the_build_are_told_apart(tiny_model, gpu_machine):
    with pytest.raises(DeviceError, match=r"shows 1 GPU\(s\), so cuda:1 does not exist"):
        open_session(tiny_model(), device="cuda:1")
    gpu_machine.gpus = None
    with pytest.raises(DeviceError, match="no NVIDIA driver answers"):
        open_session(tiny_model(), device="cuda")
    gpu_machine.providers = ("CPUExecutionProvider",)
    with pytest.raises(DeviceError, match=r"built without CUDA.*&& pip install onnxruntime-gpu$"):
        open_session(tiny_model(), device="cuda")


def test_a_runtimes_own_words_while_opening_become_one_line(tiny_model, gpu_machine):
    gpu_machine.open_error = "Failed to load library libonnxruntime_providers_cuda.so: libcublasLt.so.13\nsecond line"
    with pytest.raises(DeviceError, match=r"cuda:0 cannot run .*libcublasLt.so.13\. Look with") as caught:
        open_session(tiny_model(), device="cuda")
    assert "second line" not in str(caught.value)


def test_a_model_is_not_blamed_for_threads_that_cannot_be_started(tiny_model, monkeypatch):
    def refused(ort, plan, device):
        raise RuntimeError("env.cc:327 PosixThread pthread_create failed, error code: 11 error msg: Resource tempor")

    monkeypatch.setattr(session, "make_inner", refused)
    with pytest.raises(DeviceError, match=r"cpu can start no more threads for .*tiny1\.onnx\. Raise the limit on them"):
        open_session(tiny_model(), device="cpu")


def test_auto_takes_the_gpu_once_it_is_proved(tiny_model, gpu_machine):
    opened = open_session(tiny_model())
    assert opened.device.name == "cuda:0"
    assert opened.device.requested == "auto"
    assert "100.000 % of the golden frames' pixels agree with Keras in fp32" in opened.device.reason


def test_auto_passes_over_a_gpu_that_computes_other_labels(tiny_model, gpu_machine):
    gpu_machine.wrong = True
    opened = open_session(tiny_model())
    assert opened.device.name == "cpu"
    assert "cuda:0: only 0.000 %" in opened.device.reason


def test_auto_passes_over_a_gpu_whose_memory_is_too_small(tiny_model, gpu_machine):
    gpu_machine.memory_frames = 1
    opened = open_session(tiny_model(), batch_size=2)
    assert opened.device.name == "cpu"
    assert "cuda:0: cuda:0 has no memory for 2 frames" in opened.device.reason


def test_auto_passes_over_a_device_whose_golden_labels_are_planted_wrong(tiny_model, gpu_machine):
    assert open_session(tiny_model(golden="wrong")).device.name == "cpu"


def test_auto_proves_at_the_batch_size_it_will_run(tiny_model, gpu_machine):
    open_session(tiny_model(), batch_size=2)
    assert set(gpu_machine.batch_sizes) == {2}


def test_a_lower_precision_needs_golden_frames_to_be_chosen(tiny_model):
    header = read_model_header(tiny_model(golden=None))
    spec = ModelSpec(input_size=(32, 64))

    def candidates(arithmetic: str):
        return [
            ("fast", lambda: FakeSession(spec, arithmetic=arithmetic, name="fast")),
            ("cpu", lambda: FakeSession(spec, name="cpu")),
        ]

    assert open_first_proved(candidates("fp32"), header).device.name == "fast"
    chosen = open_first_proved(candidates("bf16"), header).device
    assert chosen.name == "cpu"
    assert "would compute in bf16, and the file has no golden frames" in chosen.reason


def test_a_failing_candidate_is_closed_and_its_failure_recorded(tiny_model):
    header = read_model_header(tiny_model())
    spec = ModelSpec(input_size=(32, 64))
    broken = FakeSession(spec, missing_library="libfast.so.1", name="fast")
    chosen = open_first_proved([("fast", lambda: broken), ("cpu", lambda: FakeSession(spec, name="cpu"))], header)
    assert broken.closed
    assert "libfast.so.1 is missing" in chosen.device.reason


def test_when_even_the_cpu_fails_its_error_comes_through(tiny_model):
    def fail() -> FakeSession:
        raise OutOfMemoryError("cpu has no memory for 64 frames of 64x32.")

    with pytest.raises(OutOfMemoryError):
        open_first_proved([("cpu", fail)], read_model_header(tiny_model()))


def test_tensorrts_cache_answers_for_one_case_only(tiny_model, gpu_machine, monkeypatch):
    ort = session.load_runtime()
    one, other = read_model_header(tiny_model()), read_model_header(tiny_model(golden=None))
    base = tensorrt.cache_folder(ort, one, 1, (32, 64), 0)
    others = {
        tensorrt.cache_folder(ort, other, 1, (32, 64), 0),
        tensorrt.cache_folder(ort, one, 2, (32, 64), 0),
        tensorrt.cache_folder(ort, one, 1, (64, 64), 0),
        tensorrt.cache_folder(ort, one, 1, (32, 64), 1),
    }
    monkeypatch.setattr(ort, "__version__", "9.9")
    others.add(tensorrt.cache_folder(ort, one, 1, (32, 64), 0))
    monkeypatch.setattr("edge_seg.tensorrt.tensorrt_version", lambda: 110000)
    others.add(tensorrt.cache_folder(ort, one, 1, (32, 64), 0))
    assert len(others | {base}) == 7


def test_auto_takes_tensorrt_only_with_an_engine_in_its_cache(tiny_model, gpu_machine):
    path = tiny_model()
    assert open_session(path).device.name == "cuda:0"
    named = open_session(path, device="tensorrt")
    assert (named.device.name, named.device.arithmetic) == ("tensorrt:0", "fp16")
    (_, options), (fallback, _) = gpu_machine.asked[-1]
    folder = Path(options["trt_engine_cache_path"])
    assert (fallback, stat.S_IMODE(folder.stat().st_mode)) == ("CUDAExecutionProvider", 0o700)
    assert open_session(path).device.name == "cuda:0", "a folder is no engine"
    (folder / "model.engine").write_bytes(b"engine")
    assert open_session(path).device.name == "tensorrt:0"
    assert open_session(path, batch_size=2).device.name == "cuda:0", "an engine for another batch"


def test_auto_needs_no_home_folder_and_tensorrt_names_the_cure(tiny_model, gpu_machine, monkeypatch):
    """As in a container that runs as an unknown user."""

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert open_session(tiny_model()).device.name == "cuda:0"
    with pytest.raises(DeviceError, match=r"this user has no home folder\. Set XDG_CACHE_HOME\.$"):
        open_session(tiny_model(), device="tensorrt")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755, 0o710])
def test_a_cache_that_is_open_to_others_is_refused(tmp_path, mode):
    folder = tensorrt.private_folder(tmp_path / "tensorrt" / "key")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(mode)
    with pytest.raises(DeviceError, match=rf"cache {folder} is open to others\. .*chmod 700 {folder}"):
        tensorrt.private_folder(folder)
    folder.chmod(0o700)
    folder.parent.chmod(mode)
    if mode & 0o022:
        with pytest.raises(DeviceError, match=f"chmod 700 {folder.parent}$"):
            tensorrt.private_folder(folder)
    else:
        assert tensorrt.private_folder(folder) == folder


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_cache_of_somebody_elses_is_refused_as_is_a_link(tmp_path, monkeypatch):
    folder = tensorrt.private_folder(tmp_path / "tensorrt" / "key")
    (tmp_path / "tensorrt" / "link").symlink_to(folder)
    with pytest.raises(DeviceError, match=r"link is a link or a file\. Remove it"):
        tensorrt.private_folder(tmp_path / "tensorrt" / "link")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(DeviceError, match=rf"belongs to user {own}, who could .*XDG_CACHE_HOME"):
        tensorrt.private_folder(folder)


def test_auto_passes_over_a_cache_that_others_can_fill(tiny_model, gpu_machine):
    """An engine that somebody else could have put there is never run."""
    path = tiny_model()
    open_session(path, device="tensorrt")
    folder = Path(gpu_machine.asked[-1][0][1]["trt_engine_cache_path"])
    (folder / "model.engine").write_bytes(b"engine")
    folder.chmod(0o777)
    chosen = open_session(path).device
    assert chosen.name == "cuda:0"
    assert "is open to others" in chosen.reason
    with pytest.raises(DeviceError, match="is open to others"):
        open_session(path, device="tensorrt")


def test_tensorrt_without_its_library_says_so(tiny_model, gpu_machine, monkeypatch):
    monkeypatch.setattr("edge_seg.devices.tensorrt_version", lambda: 0)
    with pytest.raises(DeviceError, match="libnvinfer"):
        open_session(tiny_model(), device="tensorrt")


def test_two_builds_over_each_other_are_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(session, "installed_builds", lambda: {"onnxruntime": "1.2", "onnxruntime-gpu": "1.2"})
    with pytest.raises(MissingDependencyError, match=r"pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        session.load_runtime.__wrapped__()


def test_installed_builds_are_read_from_the_environment(monkeypatch, tmp_path):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-9.9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert versions.installed_builds() == {"onnxruntime": "9.9.9", "onnxruntime-gpu": "9.9.9"}


@pytest.mark.parametrize(
    ("arithmetic", "kind", "precision", "bf16"),
    [
        ("fp32", "cpu", "fp32", False),
        ("bf16", "openvino", "fp32", True),
        ("bf16", "openvino", "fp16", True),
        ("fp32", "openvino", "fp32", False),
        ("int8", "openvino", "int8", True),
        ("fp16", "cuda", "fp16", False),
        ("fp16", "tensorrt", "fp32", False),
    ],
)
def test_the_bound_follows_the_arithmetic_really_used(arithmetic, kind, precision, bf16):
    assert devices.arithmetic_of(kind, precision, bf16=bf16) == arithmetic


def test_checks_show_a_gpu_machine_as_auto_sees_it(monkeypatch, tiny_model, gpu_machine):
    monkeypatch.setattr(checks, "bundled_model", tiny_model)
    found = checks.collect_checks()
    assert {item.name: item.available for item in found.devices}["cuda:0"]
    assert found.auto_device == "cuda:0"


@pytest.mark.parametrize(
    ("precision", "exact_sums", "slow_way_round"), [("int8", False, "1"), ("int8", True, None), ("fp32", False, None)]
)
def test_int8_files_whose_sums_may_be_cut_off_are_run_exactly(tiny_model, precision, exact_sums, slow_way_round):
    opened = open_session(tiny_model(precision=precision, exact_sums=exact_sums), device="cpu")
    options = opened._inner.get_session_options()
    try:
        found = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # onnxruntime's answer for an entry that was never set
        found = None
    assert found == slow_way_round


# The plugin is played by `intel_machine`: what it is asked for is real, its speed and its arithmetic are not.


@pytest.mark.parametrize(
    ("capabilities", "hint", "arithmetic"), [("FP32 INT8 BF16", "bf16", "bf16"), ("FP32 INT8", "f32", "fp32")]
)
def test_openvino_is_asked_for_one_request_on_all_threads(tiny_model, intel_machine, capabilities, hint, arithmetic):
    intel_machine.capabilities = capabilities
    opened = open_session(tiny_model(), device="openvino", threads=3)
    ((config, entries),) = intel_machine.asked
    assert json.loads(config["load_config"]) == {
        "CPU": {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": "3",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
    }
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert (opened.device.name, opened.device.arithmetic) == ("openvino", arithmetic)


def test_auto_takes_openvino_where_it_multiplies_in_bf16(tiny_model, intel_machine):
    report = open_session(tiny_model()).device
    assert report.name == "openvino"
    assert "the fastest that keeps parity" in report.reason
    assert "agree with Keras in bf16" in report.reason


def test_auto_leaves_openvino_where_the_cpu_provider_is_as_fast(tiny_model, intel_machine):
    intel_machine.capabilities = "FP32 INT8"
    report = open_session(tiny_model()).device
    assert report.name == "cpu"
    assert "openvino: no faster than cpu: this processor does not multiply in bf16" in report.reason
    assert open_session(tiny_model(precision="int8")).device.name == "openvino"
    assert open_session(tiny_model(), device="openvino").device.name == "openvino", "asked for by name"


def test_auto_passes_over_an_openvino_that_computes_other_labels(tiny_model, intel_machine):
    intel_machine.wrong = True
    report = open_session(tiny_model()).device
    assert report.name == "cpu"
    assert "openvino: only 0.000 %" in report.reason


def test_no_thread_spins_on_a_core_the_pipeline_needs(tiny_model):
    options = open_session(tiny_model(), device="cpu")._inner.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_two_runs_at_once_share_the_threads(tiny_model, tiny_reference):
    """Each run brings the thread that calls it."""
    alone = open_session(tiny_model(), device="cpu", threads=4)
    both = open_session(tiny_model(), device="cpu", threads=4, overlapped=True)
    assert alone._inner.get_session_options().intra_op_num_threads == 4
    assert both._inner.get_session_options().intra_op_num_threads == 3
    assert (both.runs_at_once, both.device.threads) == (2, 4)
    one = open_session(tiny_model(), device="cpu", threads=1, overlapped=True)
    assert (one._inner.get_session_options().intra_op_num_threads, one.runs_at_once) == (1, 1)
    batches = [frames(2) for _ in range(8)]
    with ThreadPoolExecutor(2) as threads:
        for batch, found in zip(batches, threads.map(both.run, batches), strict=True):
            np.testing.assert_array_equal(found["labels"], tiny_reference(batch, 12))


def test_the_error_of_one_run_waits_for_the_other():
    """What it has on the device would be missing to a smaller batch that is tried next."""
    begun, ended = threading.Barrier(2), []

    def call() -> None:
        begun.wait(timeout=20)
        if threading.current_thread() is threading.main_thread():
            raise OutOfMemoryError("too large")
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(OutOfMemoryError):
        ort_session._at_once(2, call)
    assert ended == [True]


def test_runs_at_once_are_those_that_were_asked_for(tiny_model):
    assert open_session(tiny_model(), device="cpu", threads=4).runs_at_once == 1


def test_a_session_on_the_cpu_leaves_the_applications_log_level_alone(tiny_model, monkeypatch):
    import onnxruntime

    levels = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", levels.append)
    open_session(tiny_model(), device="cpu")
    assert levels == []


def test_a_closed_session_says_the_same_whoever_made_it(tiny_model):
    for opened in (open_session(tiny_model(), device="cpu"), FakeSession()):
        opened.close()
        with pytest.raises(ConfigurationError, match="This session is closed"):
            opened.run(np.zeros((1, 32, 64, 3), np.uint8))
