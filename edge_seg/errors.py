"""Every error edge_seg raises on purpose.

    EdgeSegError
    ├── ConfigurationError  (ValueError)     the call itself was wrong: an option, a size, a combination       exit 2
    ├── ModelFileError      (ValueError)     a model file that is missing, damaged, unsafe or not one of ours  exit 1
    ├── DatasetError        (ValueError)     a dataset with missing, damaged or contradictory files            exit 1
    ├── MediaError          (OSError)        a video, image or camera that cannot be read or written           exit 1
    │   └── RefusedError    (PermissionError) a server that wants another user name or password               exit 1
    ├── DeviceError         (RuntimeError)   a device that was asked for and is not available                  exit 1
    │   └── OutOfMemoryError (MemoryError)   the device's memory does not hold the batch                       exit 1
    ├── ParityError         (RuntimeError)   a model whose labels differ from Keras' by more than its bound    exit 1
    ├── ConversionError     (RuntimeError)   a network that could not be turned into ONNX                      exit 1
    └── MissingDependencyError (ImportError) a package that is not installed; names the cure                   exit 1

Each also inherits from the builtin a caller would expect to catch. Each message says what was expected, what came, and
the cure. A result that is not quite as asked for, but no error, comes with a `RuntimeWarning`.
"""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "ConfigurationError",
    "ConversionError",
    "DatasetError",
    "DeviceError",
    "EdgeSegError",
    "MediaError",
    "MissingDependencyError",
    "ModelFileError",
    "OutOfMemoryError",
    "ParityError",
    "RefusedError",
]


class EdgeSegError(Exception):
    """Base of every error edge_seg raises on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigurationError(EdgeSegError, ValueError):
    """The call itself was wrong: an unknown option value, an impossible size or combination."""

    exit_code = 2


class ModelFileError(EdgeSegError, ValueError):
    """A model file that is missing, damaged, unsafe, or not an edge_seg model."""


class DatasetError(EdgeSegError, ValueError):
    """A dataset with missing, damaged or contradictory files. `problems` names each, one line a file.

    `cure` ends the first line; a caller whose command has other options puts its own in the place of it.
    """

    def __init__(self, message: str, problems: tuple[str, ...] = (), *, cure: str = "") -> None:
        super().__init__("\n".join((f"{message} {cure}".rstrip(), *(f"  {problem}" for problem in problems))))
        self.problems, self.cure = problems, cure


class MediaError(EdgeSegError, OSError):
    """A video, image, camera or stream that cannot be opened, read or written."""


class RefusedError(MediaError, PermissionError):
    """A server that refuses the user name, the password or this user; asking again would not help."""


class DeviceError(EdgeSegError, RuntimeError):
    """A device that was asked for by name and is not available; another one is never used instead."""


class OutOfMemoryError(DeviceError, MemoryError):
    """The device's memory does not hold this batch; a smaller one may fit."""


class ParityError(EdgeSegError, RuntimeError):
    """Labels that differ from Keras' by more than the precision's bound allows."""


class ConversionError(EdgeSegError, RuntimeError):
    """A network that could not be turned into an edge_seg ONNX graph; the message names what did not fit."""


class MissingDependencyError(EdgeSegError, ImportError):
    """A package that is not installed; the message names the command that installs it."""


def raise_if_interrupted(error: BaseException) -> None:
    """Raise `KeyboardInterrupt` if one caused `error`: a native module that is interrupted while loading raises an
    `ImportError` instead."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        cause = cause.__cause__


def warn_caller(text: str) -> None:
    """Issue a `RuntimeWarning` that points at the line which called into this package, at whatever depth."""
    depth, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(text, RuntimeWarning, stacklevel=depth)
