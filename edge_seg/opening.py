"""Opening media: what may be opened at all, how long that may take, and a one-line error if it fails.

With `tracks.py`, `video.py`, `audio.py`, `encode.py` and `mp4.py` the only user of av. Knows no frames.

A file opens nothing but itself, an address nothing but its own kind of connection: playlists, which open other files
and addresses, are not accepted, and libav may use only the protocols that the source itself needs. A web server may
redirect to another web address, as download servers do, and nowhere else.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

import av
import av.error
from av.container import InputContainer

from .boxes import refers_elsewhere
from .diagnose import explain_file, reading
from .errors import MediaError, RefusedError
from .media import MAX_PIXELS, STANDARD_INPUT
from .native import native_code, program_is_ending
from .redact import redact, redact_foreign, remember_secrets

# No playlists (hls, dash, concat, sdp files): they open other files and addresses.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif,mxf,dv,ivf,obu,"
    "h264,hevc,m4v,mjpeg,mpjpeg,jpeg_pipe"
)
PROTOCOLS = {
    "file": "file",
    "http": "http,https,tcp,tls,httpproxy",
    "https": "http,https,tcp,tls,httpproxy",
    # The video comes over the connection itself (`rtsp_transport`): no other port is opened.
    "rtsp": "rtsp,tcp",
    "rtsps": "rtsps,rtsp,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "tcp": "tcp",
    "udp": "udp",
}
QUICKLY_LOOKED_AT = frozenset({"rtsp", "rtsps"})
# Streams over these have no end of their own, whatever duration libav guesses from the first frames.
WITHOUT_END = frozenset({"rtsp", "rtsps", "tcp", "udp"})
CLOCKS_WITHOUT_ZERO = frozenset({"mpeg", "mpegts", "rtsp"})
CHECK = "Check the address and that the camera is on."
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 8.0
READ_STEP_S = 0.2
READABLE_BY_HTTP = "An MP4 whose index comes last needs a server that answers ranges; else download it first"
READABLE_PIPED = "MPEG-TS, Matroska and raw H.264 can be piped, an MP4 if its index comes first (faststart)"


def open_file(path: str | Path) -> InputContainer:
    """Open a video file for reading.

    Raises:
        MediaError: it cannot be opened; the message names it and says what is wrong with it.
    """
    if not os.path.isfile(path):
        # Opening a named pipe would wait for ever if nothing writes to it.
        raise MediaError(explain_file(Path(path), ""))
    with reading(str(path)):
        if refers_elsewhere(Path(path)):
            raise MediaError(f"{path}: its pictures lie in another file, which is not opened; give that file itself.")
        # With the prefix, a name like "concat:a|b" is the name of a file, never a protocol.
        opened = _open(f"file:{path}", "file", timeout=None)
        if isinstance(opened, InputContainer):
            return opened
        raise MediaError(explain_file(Path(path), reason_of(opened)))


def open_address(
    address: str,
    *,
    open_timeout_s: float | None = None,
    read_timeout_s: float = READ_TIMEOUT_S,
    stopped: Callable[[], bool] = lambda: False,
) -> InputContainer:
    """Open an address for reading; `PROTOCOLS` names the kinds.

    Args:
        address: with its credentials, which are remembered so that no line ever shows them.
        open_timeout_s: how long connecting may take, and how long probing the first frames may; by default
            `OPEN_TIMEOUT_S`.
        read_timeout_s: how long a read may block.
        stopped: whether to stop waiting for it; asked a few times a second.

    Raises:
        RefusedError: the server does not accept the user name or password, or refuses access.
        MediaError: it cannot be opened; the message names it, credentials redacted.
    """
    remember_secrets(address)
    limit_s = OPEN_TIMEOUT_S if open_timeout_s is None else open_timeout_s
    scheme = address.partition("://")[0].lower()
    began_at = time.monotonic()
    timeout = (limit_s, read_timeout_s)

    def opening(given_up: Callable[[], bool]) -> InputContainer | Exception:
        opened = _open(address, scheme, timeout=timeout)
        unsized = isinstance(opened, InputContainer) and scheme in QUICKLY_LOOKED_AT and not _sized(opened)
        if isinstance(opened, InputContainer) and unsized and not given_up():
            # The stream's description does not give the frame size: wait for a key frame, which does.
            opened.close()
            opened = _open(address, scheme, timeout=timeout, patient=True)
        return opened

    opened = _waited_for(opening, stopped)
    if opened is None:
        raise MediaError(f"{redact(address)}: no answer had come.")
    # Some of libav's layers report a timeout as another error, so the time that passed counts too.
    late = isinstance(opened, av.error.ExitError) or time.monotonic() - began_at >= limit_s
    if isinstance(opened, InputContainer):
        return opened
    # Raised here, outside any handler, so that the native error, which holds the unredacted address, is not chained.
    raise _explain_address(redact(address), opened, limit_s if late else None)


class StandardInput:
    """Standard input as a file object for libav; it waits in short steps, so that a stop ends the wait.

    Args:
        stopped: whether to stop waiting; `stop` does so too.

    Raises:
        MediaError: nothing is piped into this process.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stop_asked, self._stopped = stopped, threading.Event()
        try:
            self._descriptor = sys.stdin.fileno()
            terminal = os.isatty(self._descriptor)
        except io.UnsupportedOperation:
            raise MediaError(f"{STANDARD_INPUT}: this program has none that can be read, as in a notebook.") from None
        except (AttributeError, OSError, ValueError):
            raise MediaError(f"{STANDARD_INPUT}: is closed; pipe a video into it.") from None
        if terminal:
            raise MediaError(f"{STANDARD_INPUT}: is a terminal; pipe a video into it.")
        self._taken = 0
        self._begin = os.lseek(self._descriptor, 0, os.SEEK_CUR) if self.seekable() else 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end or after a stop."""
        while not self.is_stopped():
            # On Windows `select` works only on sockets.
            if os.name == "nt" or select.select([self._descriptor], [], [], READ_STEP_S)[0]:
                data = os.read(self._descriptor, size)
                self._taken += len(data)
                return data
        return b""

    def seekable(self) -> bool:
        """Whether standard input is a regular file (`edge-seg predict - < clip.mp4`)."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it, in bytes from where the file stood when it was opened here."""
        return os.lseek(self._descriptor, offset + (self._begin if whence == os.SEEK_SET else 0), whence) - self._begin

    def tell(self) -> int:
        """The position, in bytes from where the file stood when it was opened here."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR) - self._begin

    def is_stopped(self) -> bool:
        """Whether it ended because a stop was asked for."""
        return self._stopped.is_set() or self._stop_asked()

    def stop(self) -> None:
        """Make the read that is waiting, and all later ones, return the end of the file."""
        self._stopped.set()

    def open(self) -> InputContainer:
        """Open it as a video.

        Raises:
            MediaError: it is not a video, or one that cannot be read from its beginning on.
        """
        opened = _open(self, "pipe", timeout=None)
        if isinstance(opened, InputContainer):
            return opened
        if self.is_stopped():
            raise MediaError(f"{STANDARD_INPUT}: no picture had come.")
        if not self._taken:
            raise MediaError(f"{STANDARD_INPUT}: ended before anything came.")
        raise MediaError(
            f"{STANDARD_INPUT}: no video that can be read from its beginning on ({reason_of(opened)}). "
            f"{READABLE_PIPED}."
        )


def is_of(container: InputContainer, formats: frozenset[str]) -> bool:
    """Whether a container is of one of these formats, by libav's names for them."""
    return not formats.isdisjoint(container.format.name.split(","))


def clock_origin_s(container: InputContainer) -> float:
    """Seconds on the source's clock that count as zero, the same for all its tracks."""
    if not is_of(container, CLOCKS_WITHOUT_ZERO):
        return 0.0
    return (container.start_time or 0) / av.time_base


def reason_of(error: Exception) -> str:
    """The library's error text, without the file name and without credentials."""
    return redact_foreign(str(getattr(error, "strerror", None) or type(error).__name__)).lower()


def _sized(container: InputContainer) -> bool:
    return all(stream.codec_context is None or stream.codec_context.width > 0 for stream in container.streams.video)


def _waited_for(
    opening: Callable[[Callable[[], bool]], InputContainer | Exception], stopped: Callable[[], bool]
) -> InputContainer | Exception | None:
    """The result of `opening`, whose argument tells it whether it was given up; None if `stopped` came first.

    libav waits in native code, where neither Ctrl-C nor `stopped` is heard, so `opening` runs on a thread of its own.
    If the wait is given up, that thread closes what it opens; the end of the program waits for it.
    """
    if program_is_ending():  # Python starts no thread any more.
        return opening(stopped)
    opened: Future[InputContainer | Exception] = Future()

    def work() -> None:
        # At the program's end OpenSSL tidies up behind itself: a thread that is still connecting would crash it.
        with native_code():
            try:
                result = opening(opened.cancelled)
            except BaseException as error:
                if opened.set_running_or_notify_cancel():
                    opened.set_exception(error)
                return
            if opened.set_running_or_notify_cancel():
                opened.set_result(result)
            elif isinstance(result, InputContainer):
                result.close()

    threading.Thread(target=work, name="edge_seg-open", daemon=True).start()
    try:
        while not wait([opened], READ_STEP_S).done:
            if stopped() and opened.cancel():
                return None
        return opened.result()
    except BaseException:
        opened.cancel()
        raise


def _open(
    target: str | StandardInput,
    scheme: str,
    *,
    timeout: tuple[float, float] | None,
    patient: bool = False,
) -> InputContainer | Exception:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS.get(scheme, "")}
    if scheme in ("rtmp", "rtmps"):
        # libav would wait five seconds for audio that may never start. The frame format comes first anyway.
        options |= {"fpsprobesize": "2", "analyzeduration": "1000000"}
    elif scheme in ("tcp", "udp"):
        # Joining in mid-stream, libav has to wait for a key frame, but need not measure the frame rate.
        options |= {"fpsprobesize": "2", "analyzeduration": "60000000", "probesize": "100000000"}
    if scheme in QUICKLY_LOOKED_AT:
        # Video only: audio is not used.
        options |= {"format_whitelist": "rtsp", "rtsp_transport": "tcp", "allowed_media_types": "video"}
        if not patient:
            # The stream's description is enough; libav would probe frames too, for seconds with a slow camera.
            options |= {"fpsprobesize": "2", "probesize": "32"}
    try:
        # `options` also reach the decoders that probe the first frames, before any size is known here. Cameras write
        # titles and handler names in any encoding, and these are not used: undecodable ones must not be an error.
        return av.open(
            target,
            "r",
            container_options=options,
            options={"max_pixels": str(MAX_PIXELS)},
            timeout=timeout,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return error


def _explain_address(name: str, error: Exception, waited_s: float | None) -> MediaError:
    """A one-line error for an address that could not be opened; `name` is free of credentials."""
    waited = "" if waited_s is None else f"{round(waited_s, 1):g}"
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return RefusedError(f"{name}: refused the user name or password (401). Write them as USER:PASSWORD@HOST.")
    if isinstance(error, av.error.HTTPForbiddenError):
        return RefusedError(f"{name}: refused access (403). Check the rights of this user.")
    if waited_s is not None and "listen" in name.partition("?")[2]:
        return MediaError(f"{name}: nobody called within {waited} s; --wait S waits longer.")
    if waited_s is not None and name.lower().startswith(("tcp:", "udp:")):
        return MediaError(
            f"{name}: nothing came within {waited} s, or no key frame, with which pictures begin. {CHECK}"
        )
    if waited_s is not None:
        return MediaError(f"{name}: did not answer within {waited} s. {CHECK}")
    # Of all kinds of address, only http often names a playlist.
    nothing = isinstance(error, (ConnectionError, av.error.HTTPNotFoundError))
    playlist = name.lower().startswith("http") and not nothing
    cure = "Playlists (HLS, DASH) are not followed, and pictures are read from files." if playlist else CHECK
    return MediaError(f"{name}: cannot be opened ({reason_of(error)}). {cure}")
