"""Model files are looked into before any runtime opens them: each fault has its name, and no bytes do harm."""

from __future__ import annotations

import hashlib
import os
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_seg.errors import ModelFileError
from edge_seg.modelfile import MAX_MODEL_BYTES, read_model_header
from edge_seg.onnxwalk import MAX_NODES, MAX_TENSOR_BYTES, walk_model
from edge_seg.protobuf import DamagedError, Reader
from edge_seg.spec import GOLDEN_KEY, METADATA_KEY, ModelSpec


def onnx_bytes(*, nodes=(), initializers=(), metadata=None, opset_imports=None, training_info=(), **rest) -> bytes:
    """A serialized model that the onnx package itself would not check."""
    from onnx import helper

    graph = helper.make_graph(list(nodes) or [helper.make_node("Identity", ["a"], ["b"])], "g", [], [], initializers)
    model = helper.make_model(graph, opset_imports=opset_imports or [helper.make_opsetid("", 17)], **rest)
    model.training_info.extend(training_info)
    helper.set_model_props(model, metadata or ModelSpec().to_metadata())
    return model.SerializeToString()


def tensor(name="w", dims=(2, 2), data_type=1, raw=b"\0" * 16):
    from onnx import TensorProto

    made = TensorProto(name=name, dims=dims, data_type=data_type)
    if raw is not None:
        made.raw_data = raw
    return made


def test_a_spec_is_a_key_and_its_records_are_no_part_of_it() -> None:
    known = {ModelSpec(training={"epochs": 3}): "a"}
    assert known[ModelSpec(training={"epochs": 3})] == "a"
    assert ModelSpec(training={"epochs": 4}) not in known


def test_the_header_says_what_the_onnx_package_says(tiny_model):
    import onnx

    path = tiny_model(outputs=("labels", "confidence"))
    header, model = read_model_header(path), onnx.load(path)
    assert header.contents.ir_version == model.ir_version
    assert header.contents.opsets == {item.domain: item.version for item in model.opset_import}
    assert header.contents.metadata == {item.key: item.value for item in model.metadata_props}
    assert header.contents.operators.total() == len(model.graph.node)
    assert header.contents.weight_bytes == sum(len(item.raw_data) for item in model.graph.initializer)
    assert header.size_bytes == path.stat().st_size
    assert header.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert header.spec.outputs == ("labels", "confidence")
    same = read_model_header(path.read_bytes())
    assert (same.path, same.sha256, same.contents.metadata) == (None, header.sha256, header.contents.metadata)


def test_a_missing_file_names_itself_and_the_command(tmp_path):
    with pytest.raises(ModelFileError, match=r"No model at faast\. The bundled ones are called best and fast"):
        read_model_header("faast")
    with pytest.raises(ModelFileError, match=r"No model at .*gone\.onnx\. Export one: python -m export"):
        read_model_header(tmp_path / "gone.onnx")


def test_a_bundled_model_by_its_name_alone_is_told_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match=r'No model at fast\. The bundled .* edge_seg\.bundled_model\("fast"\)'):
        read_model_header("fast")


def archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 4096, "only zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "Git LFS pointer.*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "HDF5.*python -m export"),
        (archive, "zip archive.*keras.*python -m export"),
        (b"\n  <!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf<html>", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "PNG"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 99, "JPEG"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 99, "MP4 or MOV"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 99, "TensorFlow Lite"),
        (b"\x18\0\0\0ORTM" + b"\0" * 99, r"\.ort format"),
        (b"\x80\x04\x95abc", "pickle"),
        (b"\x80\x05\x95abc", "pickle"),
        (b"\x1f\x8b\x08" + b"\0" * 99, "gzip"),
        (b"RIFF\0\0\0\0AVI ", "RIFF"),
        (b"just some words, no model", "not a whole ONNX model"),
        (b"\x08\x08", "no graph"),
    ],
)
def test_the_wrong_kind_of_file_is_named_with_what_to_do(tmp_path, content, words):
    path = tmp_path / "model.onnx"
    path.write_bytes(content(tmp_path / "a.zip") if callable(content) else content)
    with pytest.raises(ModelFileError, match=f"(?s){words}") as caught:
        read_model_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_pipes_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"^\S+ is not a file\. .* python -m export \S+ --out model\.onnx$"):
        read_model_header(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is not a file"):
        read_model_header(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model_header("a\0b")


def accepted(data: bytes) -> bool:
    try:
        read_model_header(data).spec  # noqa: B018
    except ModelFileError:
        return False
    return True


def test_a_model_that_cannot_be_mapped_is_named(tiny_model):
    resource = pytest.importorskip("resource")
    path = tiny_model()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with path.open("rb") as file:
        lowest = file.fileno()
    # The file itself can be opened, and nothing beside it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
    try:
        with pytest.raises(ModelFileError, match=r"tiny1\.onnx cannot be mapped: Too many open files"):
            read_model_header(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_truncated_file_is_refused_at_every_length(tiny_model):
    """Only a cut exactly behind a metadata text that is not ours can go unseen: nothing that matters is lost there."""
    whole = tiny_model(golden=None).read_bytes()
    ends = {field.end for field in Reader(memoryview(whole)).fields(0, len(whole)) if field.number == 14}
    survivors = {length for length in range(1, len(whole)) if accepted(whole[:length])}
    assert survivors <= ends
    assert accepted(whole)


def test_an_onnx_file_that_is_not_ours_is_named_as_such(tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(onnx_bytes(metadata={"author": "somebody"}))
    with pytest.raises(ModelFileError, match="not an edge_seg model"):
        read_model_header(path).spec  # noqa: B018


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin", ""])
def test_data_outside_the_file_is_refused_wherever_the_tensor_hides(location):
    from onnx import TensorProto, helper

    outside = tensor(raw=None)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=location)
    subgraph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", [], [], [outside])
    function = helper.make_function(
        "d", "F", [], ["y"], [helper.make_node("Constant", [], ["y"], value=outside)], [helper.make_opsetid("", 17)]
    )
    sparse = helper.make_sparse_tensor(outside, tensor("i", (1,), 7, b"\0" * 8), [2, 2])
    places = {
        "initializer": onnx_bytes(initializers=[outside]),
        "constant": onnx_bytes(nodes=[helper.make_node("Constant", [], ["y"], value=outside)]),
        "subgraph": onnx_bytes(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=subgraph)]),
        "function": onnx_bytes(functions=[function]),
        "sparse": onnx_bytes(nodes=[helper.make_node("Constant", [], ["y"], sparse_value=sparse)]),
    }
    for data in places.values():
        with pytest.raises(ModelFileError, match="outside the file"):
            read_model_header(data)


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to", None])
def test_a_file_beside_the_model_is_not_opened_whatever_it_is(tmp_path, link):
    """A link inside the folder would pass a check of names alone."""
    from onnx import TensorProto

    secret = tmp_path / "elsewhere" / "secret.bin"
    secret.parent.mkdir()
    secret.write_bytes(b"\0" * 16)
    beside = tmp_path / "weights.bin"
    getattr(beside, link)(secret) if link else beside.write_bytes(b"\0" * 16)
    outside = tensor(raw=None)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(initializers=[outside]))
    with pytest.raises(ModelFileError, match=r"model\.onnx keeps weights outside the file \('weights\.bin'\)"):
        read_model_header(path)


def test_a_location_without_the_external_flag_is_refused_too():
    hidden = tensor()
    hidden.external_data.add(key="location", value="x.bin")
    with pytest.raises(ModelFileError, match=r"outside the file \('x.bin'\)"):
        read_model_header(onnx_bytes(initializers=[hidden]))


def test_the_external_flag_alone_is_refused_too():
    from onnx import TensorProto

    hidden = tensor(dims=(0,), raw=None)
    hidden.data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelFileError, match=r"outside the file \('w'\)"):
        read_model_header(onnx_bytes(initializers=[hidden]))


def test_tensors_must_hold_what_they_declare():
    with pytest.raises(ModelFileError, match="declares 16000000 bytes and holds 16"):
        read_model_header(onnx_bytes(initializers=[tensor(dims=(2000, 2000))]))
    with pytest.raises(ModelFileError, match=f"more than {MAX_TENSOR_BYTES}"):
        read_model_header(onnx_bytes(initializers=[tensor(dims=(2**20, 2**20))]))
    with pytest.raises(ModelFileError):
        read_model_header(onnx_bytes(initializers=[tensor(dims=(-1, 5))]))
    with pytest.raises(ModelFileError, match="element type 999"):
        read_model_header(onnx_bytes(initializers=[tensor(data_type=999)]))
    with pytest.raises(ModelFileError, match="17 dimensions"):
        read_model_header(onnx_bytes(initializers=[tensor(dims=(1,) * 17)]))


def function():
    from onnx import helper

    return helper.make_function(
        "d", "F", [], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )


def training():
    from onnx import TrainingInfoProto

    record = TrainingInfoProto()
    record.algorithm.node.add().op_type = "Relu"
    return record


def node(operator, **attributes):
    from onnx import helper

    return helper.make_node(operator, ["x"], ["y"], **attributes)


def inner_graph(operator="Relu"):
    from onnx import helper

    return helper.make_graph([helper.make_node(operator, ["n"], ["y"])], "inner", [], [])


def sparse():
    from onnx import helper

    return helper.make_sparse_tensor(tensor(), tensor("i", (1,), 7, b"\0" * 8), [2, 2])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (lambda: {"nodes": [node("Loop")]}, "its operator 'Loop' is none that an edge_seg model has"),
        (lambda: {"nodes": [node("ConstantOfShape")]}, "operator 'ConstantOfShape'"),
        (lambda: {"nodes": [node("Relu", domain="com.evil")]}, "operator domain 'com.evil' is not the standard one"),
        (lambda: {"opsets": [("com.microsoft", 1)]}, "operator domain 'com.microsoft'"),
        (lambda: {"nodes": [node("If", then_branch=inner_graph())]}, "a graph inside its graph"),
        (lambda: {"nodes": [node("Relu", hidden=inner_graph("Loop"))]}, "a graph inside its graph"),
        (lambda: {"functions": [function()]}, "it holds functions"),
        (lambda: {"training_info": [training()]}, "a training record"),
        (lambda: {"nodes": [node("Relu", value=sparse())]}, "a sparse tensor"),
    ],
)
def test_what_no_model_of_ours_has_is_refused(parts, words):
    from onnx import helper

    options = parts()
    opsets = [helper.make_opsetid(*item) for item in [("", 17), *options.pop("opsets", [])]]
    with pytest.raises(ModelFileError, match=f"is refused: .*{words}.*Export it again with python -m export"):
        read_model_header(onnx_bytes(opset_imports=opsets, **options))


def test_a_stranger_with_strange_operators_is_called_a_stranger():
    with pytest.raises(ModelFileError, match="not an edge_seg model"):
        read_model_header(onnx_bytes(nodes=[node("Loop")], metadata={"author": "somebody"}))


def test_names_said_twice_are_refused():
    with pytest.raises(ModelFileError, match="two tensors are called 'w'"):
        read_model_header(onnx_bytes(initializers=[tensor(), tensor()]))
    double = node("Relu", alpha=1)
    double.attribute.add().CopyFrom(double.attribute[0])
    with pytest.raises(ModelFileError, match="says 'alpha' twice"):
        read_model_header(onnx_bytes(nodes=[double]))


def test_a_file_of_too_many_nodes_is_refused():
    with pytest.raises(ModelFileError, match=f"more than {MAX_NODES} nodes"):
        read_model_header(onnx_bytes(nodes=[node("Relu")] * (MAX_NODES + 1)))


def test_a_link_to_a_model_is_that_model(tiny_model, tmp_path):
    """The path is the caller's own word; only what a file says of other files is refused."""
    path = tiny_model()
    (tmp_path / "soft.onnx").symlink_to(path)
    os.link(path, tmp_path / "hard.onnx")
    for name in ("soft.onnx", "hard.onnx"):
        assert read_model_header(tmp_path / name).sha256 == read_model_header(path).sha256
    (tmp_path / "nowhere.onnx").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileError, match=r"No model at .*nowhere\.onnx"):
        read_model_header(tmp_path / "nowhere.onnx")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_graphs_inside_graphs_do_not_exhaust_the_stack():
    graph = b""
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))
    with pytest.raises(ModelFileError, match="more than 16 deep"):
        read_model_header(b"\x08\x08" + message(7, graph))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


OTHERWISE = {
    "a tag above 32 bits": varint((14 << 3 | 2) + 2**32) + b"\0",
    "a tag of 6 bytes": b"\xf2\x80\x80\x80\x80\0" + b"\0",
    "a length of 6 bytes": varint(14 << 3 | 2) + b"\x80" * 5 + b"\0",
    "a group": varint(14 << 3 | 3) + varint(14 << 3 | 4),
    "values in two fields": message(7, message(5, number(2, 7) + message(9, b"\0" * 8) + message(7, b"\0"))),
    "values one by one": message(7, message(5, number(2, 7) + number(7, 1) + number(7, 1))),
    "more values than declared": message(7, message(5, number(1, 1) + number(2, 7) + message(7, b"\0\0"))),
    "an attribute's type above 32 bits": message(7, message(1, message(5, number(3, 1) + number(20, 2 + 2**32)))),
    "an attribute of an unknown type": message(7, message(1, message(5, number(3, 1) + number(20, 99)))),
    "an attribute's value as another wire type": message(7, message(1, message(5, varint(3 << 3 | 5) + b"\0" * 4))),
}


@pytest.mark.parametrize("added", OTHERWISE.values(), ids=OTHERWISE)
def test_what_the_runtimes_parser_reads_otherwise_is_refused(added):
    """A field that is unknown here and real to the runtime would pass every check: data outside the file, operators,
    sizes."""
    with pytest.raises(ModelFileError, match="is not a whole ONNX model"):
        read_model_header(onnx_bytes() + added)


def test_data_outside_the_file_cannot_hide_behind_wide_tags():
    hidden = message(8, b"w") + number(1, 4) + number(2, 1)
    for field, payload in ((13, message(1, b"location") + message(2, b"x.bin")), (14, b"")):
        tag = varint((field << 3 | (2 if payload else 0)) + 2**32)
        hidden += tag + (varint(len(payload)) + payload if payload else b"\x01")
    with pytest.raises(ModelFileError, match="a tag or a length of more than 32 bits"):
        read_model_header(onnx_bytes() + message(7, message(5, hidden)))


def test_a_file_of_a_million_fields_ends_at_the_budget():
    data = b"\x08\x08" * 50_000
    with pytest.raises(DamagedError, match="more fields"):
        walk_model(Reader(memoryview(data), budget=10_000), len(data))


def test_a_file_above_protobufs_limit_is_refused_unread(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(ModelFileError, match="at most 2147483647"):
        read_model_header(path)


def test_a_540_mb_file_is_read_without_its_weights(tmp_path):
    """The weights are skipped, not read: a sparse file of the full network's size."""
    size = 540 * 2**20
    dims = message(1, varint(size // 4))
    body = dims + b"\x10\x01" + varint(9 << 3 | 2) + varint(size)
    node = message(1, message(4, b"Conv"))
    initializer = varint(5 << 3 | 2) + varint(len(body) + size) + body
    metadata = b"".join(
        message(14, message(1, key.encode()) + message(2, value.encode()))
        for key, value in ModelSpec().to_metadata().items()
    )
    head = (
        b"\x08\x08" + message(8, b"\x10\x11") + metadata + varint(7 << 3 | 2) + varint(len(node + initializer) + size)
    )
    path = tmp_path / "full.onnx"
    with path.open("wb") as file:
        file.write(head + node + initializer)
        file.truncate(len(head + node + initializer) + size)
    tracemalloc.start()
    try:
        header = read_model_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20, "what lies in the file is not read into memory"
    assert (header.contents.weight_bytes, header.spec.name) == (size, "fcn8")


@given(data=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_no_bytes_do_harm(data):
    assert not accepted(data)


@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 60),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_model_is_read_or_refused_never_worse(tiny_model, edits, cut):
    if not hasattr(test_a_mutated_model_is_read_or_refused_never_worse, "whole"):
        test_a_mutated_model_is_read_or_refused_never_worse.whole = tiny_model().read_bytes()
    data = bytearray(test_a_mutated_model_is_read_or_refused_never_worse.whole)
    for position, value in edits:
        data[position % len(data)] = value
    started = time.perf_counter()
    try:
        header = read_model_header(bytes(data[: len(data) - cut]))
        header.spec  # noqa: B018
        if GOLDEN_KEY in header.contents.metadata:
            from edge_seg.golden import decode_golden

            decode_golden(header.contents.metadata[GOLDEN_KEY])
    except ModelFileError:
        pass
    # A hundredth of a second; what is looked for is work without end, on however loaded a machine.
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    "change",
    [
        {"classes": None},
        {"classes": [1, 2]},
        {"classes": ["road"] * 6 + ["car"] * 5 + ["unlabelled"]},
        {"input_size": [224]},
        {"input_size": ["a", "b"]},
        {"input_size": [10**9, 10**9]},
        {"palette": [[300, 0, 0]] * 12},
        {"palette": 5},
        {"unlabelled": "x"},
        {"unlabelled": 99},
        {"precision": "fp8"},
        {"outputs": [["labels"]]},
        {"parity": 3},
        {"dynamic_size": "no"},
        {"color_order": ["x"]},
        {"scaling": 5},
        {"format": 2},
        {"surprise": 1},
        {"name": "fcn8\x1b]0;owned\x07"},
        {"license": "two\nlines"},
        {"training": {"notes": "x" * 2**20}},
    ],
)
def test_metadata_of_any_content_is_read_or_refused(change):
    import json

    record = {**json.loads(ModelSpec().to_metadata()[METADATA_KEY]), **change}
    with pytest.raises(ModelFileError, match="metadata"):
        ModelSpec.from_metadata({METADATA_KEY: json.dumps(record)})
