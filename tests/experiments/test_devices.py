"""VC-INR's own stages on eight devices are those on one, and so are the symbols that a model encodes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run_worker(folder, num_devices):
    """What `vc_inr_worker` finds on so many virtual devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "PYTHONPATH": str(ROOT),
    }
    out = folder / f"{num_devices}.npz"
    command = [sys.executable, str(ROOT / "tests" / "vc_inr_worker.py"), str(out), str(folder / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = dict(np.load(out))
    assert found.pop("num_devices") == num_devices
    return found


@pytest.mark.slow
def test_eight_devices_train_and_encode_as_one(tmp_path):
    """Latents, meta-gradients and parameters after five updates, in float64; symbols of one model, in its float32."""
    one, eight = run_worker(tmp_path, 1), run_worker(tmp_path, 8)
    assert set(one) == set(eight)
    assert np.unique(one["symbols"]).size > 3
    for name in ("symbols", "files"):
        np.testing.assert_array_equal(one.pop(name), eight.pop(name))
    for kind in ("latents", "meta/gradient", "meta/params", "quantise_0/gradient", "quantise_0/params"):
        assert any(name.startswith(kind) for name in one), kind
    for name, expected in one.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(eight[name], expected, rtol=1e-10, atol=1e-10 * scale, err_msg=name)
    moved = one["meta/params/shared/kernel_1"] - one["meta/average/shared/kernel_1"]
    assert np.abs(moved).max() > 0
    assert one["meta/params/shared/kernel_1"].dtype == one["latents/batch"].dtype == np.float64
