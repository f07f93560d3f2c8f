"""Makes `fakes` importable, and starts `worker.py` in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))


@pytest.fixture
def start_worker():
    """start_worker(job, out, *distributed, num_devices=1, x64=False) → Popen; what still runs at the end is killed."""
    started = []

    def start(job, out, *distributed, num_devices=1, x64=False):
        flags = f"--xla_force_host_platform_device_count={num_devices}"
        paths = os.pathsep.join([str(_HERE), str(_HERE.parents[1])])
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_ENABLE_X64": str(int(x64)), "PYTHONPATH": paths
        }  # fmt: skip
        command = [sys.executable, str(_HERE / "worker.py"), job, str(out), *map(str, distributed)]
        log = open(f"{out}.{len(started)}.log", "w")  # noqa: SIM115 (lives as long as the process)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        started.append((process, log))
        process.log_path = Path(log.name)
        return process

    yield start
    for process, log in started:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def finish():
    """finish(process): waits, and fails with the process's output where it failed."""

    def wait(process, timeout=240):
        assert process.wait(timeout) == 0, process.log_path.read_text()[-4000:]

    return wait
