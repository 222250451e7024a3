"""What `pellucid doctor` says about the machine and the install."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from pellucid.runtime import data_folder, printable
from pellucid.version import __version__

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
LITTLE_MEMORY, LITTLE_DISK = 2e9, 2e9  # bytes below which the quickstart may not end well


def describe_machine() -> tuple[dict[str, Any], str]:
    """Everything as one object, and as the lines that people read; the last one says what to mend."""
    free_disk = shutil.disk_usage(Path.cwd()).free
    memory = memory_bytes()
    folder = data_folder()
    found: dict[str, Any] = {
        "pellucid": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "abilities": cpu_flags(),
        **torch_facts(),
        "memory_gb": {name: round(size / 1e9, 1) for name, size in memory.items()},
        "free_disk_gb": round(free_disk / 1e9, 1),
        "data_folder": str(folder) if folder else None,
        "packages": packages(),
    }
    mend = []
    if found["torch"] is None:
        mend.append("torch is missing: pip install torch")
    if memory.get("free", LITTLE_MEMORY) < LITTLE_MEMORY:
        mend.append("little memory is free: close other programs, or choose a small model and batch")
    if free_disk < LITTLE_DISK:
        mend.append("little disk is free: make room, or give --out a folder on another disk")
    if folder and not folder.is_dir():
        mend.append(f"PELLUCID_DATA names {folder}, which is no folder")
    found["mend"] = mend
    return found, as_text(found)


def as_text(found: dict[str, Any]) -> str:
    """One line for each thing."""
    lines = []
    for name, value in found.items():
        if name in ("mend", "packages"):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"  {name.replace('_', ' '):<13}{'none' if value in (None, '') else value}")
    for group, versions in found["packages"].items():
        shown = ", ".join(f"{name} {version or '(missing)'}" for name, version in versions.items())
        hint = "" if all(versions.values()) else f"   (all of them: pip install 'pellucid[{group}]')"
        lines.append(f"  {group:<13}{shown}{hint}")
    return printable(
        "\n".join([*lines, "to mend: " + "; ".join(found["mend"]) if found["mend"] else "nothing to mend"])
    )


def torch_facts() -> dict[str, Any]:
    """torch's version, threads and vector instructions, and the accelerators that it sees."""
    try:
        import torch
    except ImportError:
        return {"torch": None}
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    vectors = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "vectors": vectors, "devices": devices}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_of(path: str, key: str) -> str:
    """The value behind `key` in a file of the kernel; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def processor() -> str:
    """The processor's name."""
    return _first_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """What the processor can do that matters here: wide vectors, bfloat16, matrix units (Linux says it)."""
    flags = set((_first_of("/proc/cpuinfo", "flags") or _first_of("/proc/cpuinfo", "Features")).split())
    return [flag for flag in CPU_FLAGS if flag in flags]


def memory_bytes(groups: Path = Path("/sys/fs/cgroup")) -> dict[str, float]:
    """All memory and what is free of it, in bytes; nothing where the system does not say.

    In a container with a limit it is the limit that counts: who goes beyond it is killed, however much the machine has.
    """
    try:
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return {}
    free = _first_of("/proc/meminfo", "MemAvailable").partition(" ")[0]
    found = {"all": total, **({"free": float(free) * 1024} if free else {})}
    return {name: min(size, _of_container(groups).get(name, size)) for name, size in found.items()}


def _of_container(groups: Path) -> dict[str, float]:
    """The limit that Linux keeps for this process's group, and what is left of it; nothing where there is none."""
    for folder, limit, used, cache in (
        (groups, "memory.max", "memory.current", "inactive_file "),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    ):
        try:
            most, taken = (float((folder / name).read_text(encoding="utf-8")) for name in (limit, used))
            lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):  # no such file, or "max"
            continue
        kept = sum(float(line.removeprefix(cache)) for line in lines if line.startswith(cache))  # of files: given back
        return {"all": most, "free": max(0.0, most - taken + kept)}
    return {}


def packages() -> dict[str, dict[str, str | None]]:
    """The optional packages by extra, as the install lists them, with their versions or None."""
    try:
        wanted = metadata.requires("pellucid") or []
    except metadata.PackageNotFoundError:
        return {}
    groups: dict[str, dict[str, str | None]] = {}
    for line in wanted:
        requirement, _, marker = line.partition(";")
        if "extra ==" in marker:
            name = requirement.split(">")[0].split("=")[0].split("<")[0].split("[")[0].strip()
            group = marker.split("extra ==")[1].strip().strip("\"'")
            groups.setdefault(group, {})[name] = _version(name)
    return groups


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
