"""Read arrays, and nothing else, from untrusted .h5 and .npz files, each checked before any value is read.

An HDF5 file may refer to other files (external links, external storage, virtual datasets), contain cycles, name
plug-ins to load, and declare terabytes in a kilobyte; an .npz may hold pickles and deflated zeros without end. All that
is refused here, in one line each, as are archives and saved models that carry code (`.keras`, Lambda layers). Knows
nothing of networks: limits on what a file may hold are given in bytes.
"""

from __future__ import annotations

import errno
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import ModelFileError
from edge_seg.phrases import first_line

MAX_BYTES = 2**31  # the full network's weights are 540 MB
MAX_ITEMS = 10_000
MAX_DEPTH = 16
MAX_CONFIG = 4 * 2**20
CURE = "Copy it again."
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Filters of the HDF5 library itself; any other number makes it look for a plug-in and load that as code.
_PLAIN_FILTERS = {1, 2, 3}
_CODE_FREE_LAYERS = {
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Conv2DTranspose", "Dense",
    "Dropout", "Flatten", "Functional", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "MaxPooling2D",
    "Model", "ReLU", "Sequential", "Softmax", "ZeroPadding2D",
}  # fmt: skip
_CODE = {"Lambda", "__lambda__", "function"}
# What numpy and zipfile raise for a file that is no .npz, or a damaged one; numpy parses headers as Python source.
# Not MemoryError: sizes are checked before an array is read, so it means that memory has run out.
NPZ_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
)
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights. Fetch them: git lfs pull"),
    (
        b"PK\x03\x04",
        "a zip archive (a .keras model?), which can carry code and is never opened. Load it where you trust it and "
        'save its arrays alone: model.save_weights("NAME.weights.h5")',
    ),
    (b"\x80", "a Python pickle, which can run code and is never opened. Save the arrays alone: numpy.savez"),
    (b"<", "a web page (a failed download?). Download it again"),
)


def check_h5(path: Path, *, max_bytes: int = MAX_BYTES) -> int:
    """Check an HDF5 file without reading any array; returns the bytes that its arrays declare.

    Args:
        path: an existing file.
        max_bytes: what all its arrays together may declare.

    Raises:
        ModelFileError: another kind of file, a damaged one, or one that this module refuses; names what and where.
    """
    import h5py

    _check_kind(path, _HDF5, "HDF5 weights (.h5)")
    try:
        with h5py.File(path, "r") as file:
            _check_config(path, file)
            total = sum(_check_dataset(path, item) for item in _datasets(path, file))
    except ModelFileError:
        raise  # a ValueError itself
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged HDF5 ({first_line(error)}). Copy or download it again.") from error
    if total > max_bytes:
        raise ModelFileError(
            f"{path}: its arrays declare {total} bytes, and at most {max_bytes} are expected; it belongs to another "
            "network, or is made to fill the memory. Give the weights of this network."
        )
    return total


def read_h5(path: Path, names: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """The arrays of an HDF5 file, which is checked before any is read: group -> all arrays below it.

    Args:
        path: an existing file, of weights or a saved model.
        names: the groups to read, where they exist.

    Raises:
        ModelFileError: as `check_h5`, or an array that cannot be read; names what and where.
    """
    import h5py

    check_h5(path)
    found: dict[str, list[np.ndarray]] = {}
    try:
        with h5py.File(path, "r") as file:
            groups = file.get("model_weights", file)
            for name in names:
                if name in groups:
                    found[name] = [np.asarray(dataset[()]) for dataset in _below(groups[name])]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise ModelFileError(f"{path}: damaged HDF5 ({first_line(error)}). Copy or download it again.") from error
    return found


def read_npz(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an .npz, whose sizes are checked before any is read.

    Raises:
        ModelFileError: another kind of file, damaged, with pickles, or larger than `max_bytes`; names what and where.
        OSError: the disk fails, or the like, which says nothing of the file; with its name.
    """
    _check_kind(path, b"PK", "an .npz of arrays")
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(_check_member(path, archive, member) for member in archive.infolist())
        if total > max_bytes:
            raise ModelFileError(
                f"{path}: its arrays declare {total} bytes, and at most {max_bytes} are expected. Give the arrays of "
                "this network."
            )
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except ModelFileError:
        raise  # a ValueError itself
    except NPZ_DAMAGE as error:
        # A place before the file's beginning, which damage can name, is an invalid argument.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ModelFileError(f"{path}: a damaged .npz ({first_line(error)}). {CURE}") from error


def _check_kind(path: Path, magic: bytes, expected: str) -> None:
    if not path.is_file():
        # A named pipe would block for ever.
        raise ModelFileError(f"{path}: not a file; expected {expected}. Give the path of one.")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}); expected {expected}.") from error
    if head.startswith(magic):
        return
    if not head:
        raise ModelFileError(f"{path}: empty (0 bytes); expected {expected}. Copy or download it again.")
    kind = next((words for start, words in _KINDS if head.lstrip().startswith(start)), "")
    if head.startswith(_HDF5):
        kind = "an HDF5 file. Give it a name that ends in .h5"
    raise ModelFileError(f"{path}: expected {expected}, got {kind or f'a file that begins with {head[:8]!r}'}.")


def _datasets(path: Path, file: Any) -> Iterator[Any]:
    """Every dataset of a file; raises at the first link that is not a hard link or reaches an object twice."""
    import h5py

    seen: set[int] = set()
    waiting = [(file, 0)]
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise _refused(path, f"{where} is a link into another file ({link.filename[:80]!r})")
            if not isinstance(link, h5py.HardLink):
                raise _refused(path, f"{where} is a soft link")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen or len(seen) >= MAX_ITEMS or depth > MAX_DEPTH:
                raise _refused(path, f"{where} is reached twice, or lies too deep, or among too many")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                yield item
            else:
                raise _refused(path, f"{where} is a stored type")


def _below(item: Any) -> Iterator[Any]:
    """Every dataset below a group that `check_h5` has checked, by name; or the dataset itself."""
    if hasattr(item, "shape"):
        yield item
        return
    for name in item:
        yield from _below(item[name])


def _check_dataset(path: Path, dataset: Any) -> int:
    """Bytes that a dataset declares; raises unless it is plain numbers inside this file."""
    where = dataset.name
    if dataset.is_virtual:
        raise _refused(path, f"{where} is a virtual dataset, which reads other files")
    if dataset.external:
        raise _refused(path, f"{where} keeps its values in another file ({dataset.external[0][0][:80]!r})")
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise _refused(path, f"{where} holds {dataset.dtype}, not numbers")
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(index)[0] for index in range(settings.get_nfilters())}
    if filters - _PLAIN_FILTERS:
        raise _refused(path, f"{where} needs the filter plug-in {min(filters - _PLAIN_FILTERS)}")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    # The library unpacks a chunk whole, so its size counts too.
    return max(declared, math.prod(dataset.chunks or ()) * dataset.dtype.itemsize)


def _check_config(path: Path, file: Any) -> None:
    """Refuse a saved model whose description carries code, although the description is never followed."""
    config = file.attrs.get("model_config")
    if config is None:
        return
    text = config.decode("utf-8", "replace") if isinstance(config, bytes) else str(config)
    if len(text) > MAX_CONFIG:
        raise _refused(path, f"its model_config has {len(text)} characters")
    try:
        strange = sorted(_strange_layers(json.loads(text)))
    except (ValueError, RecursionError) as error:
        raise _refused(path, "its model_config is not JSON") from error
    if strange:
        raise _refused(path, f"a saved model with code or layers of its own ({', '.join(strange)[:120]})")


def _strange_layers(config: Any) -> set[str]:
    """Names of what a saved model's description would run besides plain layers: lambdas, functions, custom classes."""
    found: set[str] = set()
    waiting = [(config, True)]
    while waiting:
        item, layer = waiting.pop()
        if isinstance(item, list):
            waiting += [(part, layer) for part in item]
        elif isinstance(item, dict):
            name = str(item.get("class_name", ""))
            custom = ">" in str(item.get("registered_name")) or name in _CODE
            if custom or (layer and name and name not in _CODE_FREE_LAYERS):
                found.add(name)
            waiting += [(part, key == "layers") for key, part in item.items()]
    return found


def _refused(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: refused: {why}. Only plain arrays are read; load the model where you trust it and save them alone: "
        'model.save_weights("NAME.weights.h5").'
    )


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes that an array declares; raises unless its header agrees with what the archive holds."""
    name = member.filename
    if not name.endswith(".npy") or len(archive.namelist()) > MAX_ITEMS:
        raise ModelFileError(f"{path}: expected arrays alone; it holds {name[:80]!r}. Save them with numpy.savez.")
    if [item.filename for item in archive.infolist()].count(name) > 1:
        raise ModelFileError(f"{path}: holds {name[:80]!r} twice. Save it again with numpy.savez.")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, dtype = read(file)
        except MemoryError as error:  # what Python's parser says of text that is nested too deeply
            raise ValueError("a header of no array") from error
        begins = file.tell()
    if dtype.hasobject:
        raise ModelFileError(
            f"{path}: {name[:80]!r} is a pickle, which can run code and is never opened. Save plain numbers."
        )
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != member.file_size - begins:
        raise ModelFileError(
            f"{path}: {name[:80]!r} declares {declared} bytes and holds {member.file_size - begins}. {CURE}"
        )
    return declared
