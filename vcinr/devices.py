"""Data parallelism: one function per device, over all devices of all processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
"""Name of the mesh's only axis, for collectives."""

Axes = int | None | Sequence[int | None]


def initialise_distributed(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins this process to a run of several processes; call it before anything else touches JAX.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: number of processes in the run.
      process_id: of this process, 0 to ``num_processes`` − 1; ValueError for another.
    """
    if not 0 <= process_id < num_processes:
        raise ValueError(f"process_id {process_id} must lie in 0 … {num_processes - 1} (num_processes = {num_processes})")
    jax.distributed.initialize(coordinator, num_processes, process_id)


def use_cpu_cores(batch_sizes: Sequence[int] = ()) -> None:
    """Makes every CPU core a device: the largest number of cores that divides all batch sizes.

    Without this, XLA's CPU backend runs most of a batched training step on one core. Call it before anything else touches JAX:
    afterwards it has no effect, nor where XLA_FLAGS or JAX_NUM_CPU_DEVICES set the number of devices.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))
    said = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ
    if not said:
        with contextlib.suppress(RuntimeError):  # JAX has started.
            jax.config.update("jax_num_cpu_devices", wanted)


def all_devices_mesh() -> Mesh:
    """All devices of all processes on one axis, those of one process next to each other."""
    return _mesh(jax.devices())


def local_mesh(rows: int | None = None) -> Mesh:
    """The devices of this process alone; at most one for each of so many rows, for padding would only cost time."""
    return _mesh(sorted(jax.local_devices(), key=lambda device: device.id)[:rows])


def pmapped(
    fn: Callable, in_axes: Axes = 0, out_axes: Axes = 0, *, mesh: Mesh | None = None, donate_argnums: Sequence[int] = ()
) -> Callable:
    """``fn`` compiled to run once per device, on that device's rows of its arguments.

    A gradient taken inside ``fn`` is that of the device's own share; average it with `axis_mean`. (With shard_map's default
    ``check_vma=True``, a gradient with respect to a replicated value is silently the sum over all devices, also in a MAML inner
    loop.)

    Args:
      fn: gets its device's share of each split array, and the whole of each other; collectives use the axis name `AXIS`.
      in_axes: 0 for arguments that are split along their leading axis, None for those that every device gets whole. One value
        for all arguments, or a sequence with one per argument.
      out_axes: the same for results.
      mesh: by default all devices of all processes.
      donate_argnums: arguments whose memory the results may reuse.
    """
    mesh = all_devices_mesh() if mesh is None else mesh
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False)
    return jax.jit(mapped, donate_argnums=tuple(donate_argnums))


def axis_mean(tree: Any) -> Any:
    """Mean over devices of each leaf, inside a `pmapped` function."""
    return jax.lax.pmean(tree, AXIS)


def replicate(tree: Any, mesh: Mesh | None = None) -> Any:
    """A copy of the tree on every device; with several processes all must pass the same values, and JAX checks it."""
    mesh = all_devices_mesh() if mesh is None else mesh
    # Never an alias: a replicated state is donated, which would delete the original. (``may_alias=False`` alone does not keep
    # an array from being the first device's copy where there are several.)
    copies = jax.tree.map(lambda a: a.copy() if isinstance(a, jax.Array) else a, tree)
    return jax.device_put(copies, NamedSharding(mesh, PartitionSpec()), may_alias=False)


def local_rows(size: int, mesh: Mesh | None = None) -> slice:
    """Rows of a global batch of ``size`` that this process feeds to its devices.

    Raises ValueError where the batch does not divide evenly over the devices.
    """
    mesh = all_devices_mesh() if mesh is None else mesh
    num_devices = mesh.devices.size
    if size % num_devices:
        raise ValueError(f"a batch of {size} does not divide over {num_devices} devices; choose a multiple of {num_devices}")
    own = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    share = size // num_devices
    return slice(own[0] * share, (own[-1] + 1) * share)


def shard_batch(tree: Any, mesh: Mesh | None = None) -> Any:
    """A global batch, split over devices along the leading axis, from this process's rows of it (see `local_rows`).

    Raises ValueError where these rows do not divide evenly over this process's devices.
    """
    mesh = all_devices_mesh() if mesh is None else mesh
    own = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def put(array: Any) -> jax.Array:
        array = np.asarray(array)
        if array.ndim == 0 or array.shape[0] % own:
            raise ValueError(f"an array of shape {array.shape} does not divide over {own} devices along its leading axis")
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(put, tree)


def pad_rows(tree: Any, mesh: Mesh) -> Any:
    """Arrays with their last row repeated until the rows divide over the mesh."""
    multiple = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], -len(a) % mesh.size, axis=0)])
    return jax.tree.map(multiple, tree) if mesh.size > 1 else tree


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,), axis_types=(AxisType.Auto,))


def _specs(axes: Axes) -> PartitionSpec | tuple[PartitionSpec, ...]:
    if axes is None or axes == 0:
        return PartitionSpec() if axes is None else PartitionSpec(AXIS)
    if isinstance(axes, int):
        raise ValueError(f"only the leading axis is split over devices; axes are 0 or None, not {axes}")
    return tuple(_specs(axis) for axis in axes)
