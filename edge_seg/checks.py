"""What this machine offers and which device `auto` would choose: for `edge-seg checks` and for bug reports.

Never fails because something is missing, since it exists to report that. Opens a session only to ask `auto`.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any

from . import __version__, bundled_model
from .devices import device_problem, machine_devices
from .errors import EdgeSegError
from .phrases import first_line
from .processor import cpu_features, cpu_name
from .session import load_runtime, open_session
from .sources import demand_pyav
from .threads import affinity_count, available_threads, cgroup_quota
from .versions import installed, installed_builds

PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "av",
    "onnxruntime-ep-openvino",
)


@dataclass(frozen=True, kw_only=True)
class DeviceCheck:
    """One device: whether it is available here and, if not, why and how to fix that."""

    name: str
    available: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What `collect_checks` found.

    Attributes:
        versions: package -> version, Python and edge_seg included.
        system: operating system and architecture.
        processor: the CPU's name, as far as the system tells.
        features: CPU instructions that matter for speed.
        threads: what sessions will use.
        affinity: CPUs this process may run on.
        quota: CPUs the container's control group allows, or None.
        devices: one entry a device.
        model: the bundled model's file, which `auto` was asked about; None if it cannot be opened.
        auto_device: what `auto` chose for it, or None.
        auto_reason: why, or why there is no choice.
        problems: what is wrong here, each with its cure.
    """

    versions: dict[str, str]
    system: str
    processor: str
    features: tuple[str, ...]
    threads: int
    affinity: int
    quota: float | None
    devices: tuple[DeviceCheck, ...]
    model: str | None
    auto_device: str | None
    auto_reason: str
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The checks as a dict, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The checks as lines for a terminal, one fact each."""
        quota = "no quota" if self.quota is None else f"quota {self.quota:g}"
        lines = [
            f"system     {self.system}",
            f"processor  {self.processor}: {' '.join(self.features) or 'no features known'}",
            f"threads    {self.threads} (affinity {self.affinity}, {quota})",
            f"versions   {', '.join(f'{name} {version}' for name, version in self.versions.items())}",
            *(f"{item.name:<10} {'available' if item.available else 'no'}: {item.detail}" for item in self.devices),
            f"auto       {self.auto_device or 'no choice'}: {self.auto_reason}",
        ]
        return [*lines, *(f"problem    {problem}" for problem in self.problems)]


def collect_checks() -> Checks:
    """Check this machine."""
    devices, runtime_problem = _devices()
    path, auto_device, auto_reason = _ask_auto()
    return Checks(
        versions={
            "edge_seg": __version__,
            "python": sys.version.split()[0],
            **installed_builds(),
            **installed(PACKAGES),
        },
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=cpu_name(),
        features=cpu_features(),
        threads=available_threads(),
        affinity=affinity_count(),
        quota=cgroup_quota(),
        devices=devices,
        model=path,
        auto_device=auto_device,
        auto_reason=auto_reason,
        problems=tuple(filter(None, [_opencv_problem(), _pyav_problem(), runtime_problem])),
    )


def _opencv_problem() -> str:
    try:
        from . import opencv  # noqa: F401
    except EdgeSegError as error:
        return str(error)
    return ""


def _pyav_problem() -> str:
    try:
        demand_pyav()
    except EdgeSegError as error:
        return str(error)
    return ""


def _devices() -> tuple[tuple[DeviceCheck, ...], str]:
    try:
        ort = load_runtime()
    except EdgeSegError as error:
        return (), str(error)
    found = []
    for name in machine_devices():
        problem = device_problem(ort, name)
        detail = problem or f"onnxruntime {ort.__version__}"
        found.append(DeviceCheck(name=str(name), available=not problem, detail=detail))
    return tuple(found), ""


def _ask_auto() -> tuple[str | None, str | None, str]:
    """(file, device, reason): what `auto` chooses for the bundled model, found by opening it: only that can tell."""
    try:
        path = bundled_model()
        session = open_session(path)
    except EdgeSegError as error:
        return None, None, first_line(error)
    session.close()
    return str(path), session.device.name, session.device.reason
