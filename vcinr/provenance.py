"""Provenance of results: machine, flags, versions and source revision, on which numbers depend besides the config."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_MEASURING_PACKAGES = ("vcinr", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "constriction", "pillow")


def environment() -> dict[str, Any]:
    """Everything that must be equal for bit-identical training, as JSON-able values.

    Equal seeds give equal bits only for equal devices, CPU cores, XLA flags and versions.
    """
    return {
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "cpu_count": num_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "enable_x64": bool(jax.config.jax_enable_x64),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ → (before, now), with None for a missing value."""
    keys = sorted(set(before) | set(now))
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def provenance() -> dict[str, Any]:
    """Origin of measured numbers, as JSON-able values: commit, device, UTC date, versions.

    Call it when a measurement starts: by its end the checkout may have changed.
    """
    return {
        "commit": git_revision() or "unknown (not a git checkout)",
        "device": _device_name(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": _versions(),
    }


def git_revision() -> str | None:
    """Commit of the checkout that this code runs from, with "+changes" where files differ from it; None outside a checkout.

    Changes in docs/results do not count, for results do not change the code that measures them.
    """
    package = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(package.parent), *args], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parent:
            return None  # installed somewhere inside another project's checkout
        changes = git("status", "--porcelain", "--", ".", ":(exclude)docs/results*")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def num_cores() -> int | None:
    """CPU cores that this process may use; None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _device_name() -> str:
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} × {devices[0].device_kind}"
    return f"{_cpu_model()}, {num_cores()} cores"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _MEASURING_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
