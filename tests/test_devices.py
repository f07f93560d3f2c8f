"""Splitting over devices, in a process with four of them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr import devices

_ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from vcinr import devices

assert jax.device_count() == 4
mesh = devices.all_devices_mesh()
assert mesh.axis_names == (devices.AXIS,) and mesh.devices.size == devices.local_mesh().devices.size == 4
rows = np.arange(24.0, dtype=np.float32).reshape(8, 3)
batch = devices.shard_batch({"x": rows, "y": rows.astype(np.uint8)})
assert [s.data.shape for s in batch["x"].addressable_shards] == [(2, 3)] * 4 and batch["y"].dtype == jnp.uint8
np.testing.assert_array_equal(batch["x"], rows)
assert devices.local_rows(8) == slice(0, 8)
for bad in (devices.local_rows, lambda n: devices.shard_batch(np.zeros(n))):
    try:
        bad(6)
        raise SystemExit("a batch of 6 went over 4 devices")
    except ValueError as error:
        assert "4 devices" in str(error)

# Each device sees its share, and a gradient w.r.t. a replicated value is that of the share alone, not summed.
def shares(w, x):
    gradient = jax.grad(lambda w: jnp.sum(x * w))(w)
    return gradient[None], devices.axis_mean(gradient)

w = devices.replicate(np.ones(3, np.float32))
own, mean = devices.pmapped(shares, (None, 0), (0, None))(w, batch["x"])
np.testing.assert_allclose(own, rows.reshape(4, 2, 3).sum(1))
np.testing.assert_allclose(mean, rows.reshape(4, 2, 3).sum(1).mean(0))

# Donated arguments are gone, others are not.
moved = devices.pmapped(lambda a, b: a + b, None, None, donate_argnums=(0,))
a, b = devices.replicate(np.ones(3)), devices.replicate(np.ones(3))
moved(a, b)
assert a.is_deleted() and not b.is_deleted()

for original in (jnp.arange(3.0), jax.random.key(0), np.arange(3.0)):
    replica = devices.replicate({"leaf": original})
    devices.pmapped(lambda tree: tree, (None,), None, donate_argnums=(0,))(replica)
    assert replica["leaf"].is_deleted()
    assert isinstance(original, np.ndarray) or not original.is_deleted(), "donating a replica has deleted its original"
"""


def test_four_devices():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run([sys.executable, "-c", _ON_FOUR_DEVICES], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_one_device_is_no_special_case():
    doubled = devices.pmapped(lambda x: 2 * x)(np.arange(4))
    np.testing.assert_array_equal(doubled, [0, 2, 4, 6])
    mean = devices.pmapped(lambda tree: jax.tree.map(devices.axis_mean, tree), None, None)
    np.testing.assert_array_equal(mean({"a": np.ones(2), "b": [np.zeros(1)]})["a"], [1, 1])


def test_donating_a_replica_leaves_the_original():
    original = jnp.arange(3.0)
    replica = devices.replicate(original)
    np.testing.assert_array_equal(devices.pmapped(lambda x: x + 1, None, None, donate_argnums=(0,))(replica), [1, 2, 3])
    assert replica.is_deleted()
    np.testing.assert_array_equal(original, [0, 1, 2])


def test_only_the_leading_axis_is_split():
    with pytest.raises(ValueError, match="leading axis"):
        devices.pmapped(lambda x: x, 1)


def test_a_process_beyond_their_number_is_refused():
    with pytest.raises(ValueError, match=r"process_id 2 must lie in 0 … 1"):
        devices.initialise_distributed("localhost:1", 2, 2)


def test_a_scalar_is_no_batch():
    with pytest.raises(ValueError, match="leading axis"):
        devices.shard_batch({"x": np.float32(1)})


@pytest.mark.parametrize(
    ("said", "batch_sizes", "expected"), [({}, (), "cores"), ({}, (7, 64), "1"), ({"JAX_NUM_CPU_DEVICES": "3"}, (), "3")]
)
def test_cores_are_devices_unless_one_says_how_many(said, batch_sizes, expected):
    program = f"""
import jax, os
from vcinr.devices import use_cpu_cores
use_cpu_cores({batch_sizes})
print(jax.device_count(), len(os.sched_getaffinity(0)))
use_cpu_cores()
print(jax.device_count())
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    environment |= {"JAX_PLATFORMS": "cpu", **said}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found, cores, again = run.stdout.split()
    assert found == again == (cores if expected == "cores" else expected)
