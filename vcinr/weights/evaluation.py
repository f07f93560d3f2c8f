"""Networks that files hold, evaluated at every sample of whole signals: in bounded memory, by one program per width.

A program takes a network's weights as one vector, however many layers they are of: hidden layers are a loop whose length it
is told. So networks of one width and encoding share a program, whatever their depth and frequency.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from vcinr.bitstream.limits import DEFAULT_MAX_WORK
from vcinr.codec import Piece
from vcinr.devices import local_mesh, pmapped, replicate
from vcinr.fields import siren
from vcinr.fields.encodings import encode, encoded_dim
from vcinr.fields.field import FieldConfig
from vcinr.signals.signal import Grid

_log = logging.getLogger(__name__)

MAX_WORK = 2**42
"""Multiplications that decoding a signal may take for it to be encoded, minutes on a CPU."""
NUMBERS_PER_DEVICE, NUMBERS_AT_ONCE = 2**19, 2**22
"""Outputs of a layer that a device evaluates at once, about what a cache holds, and that all devices do; a program holds a few
times as many."""
SMALLEST_CHUNK, LARGEST_CHUNK = 2**10, 2**16
"""Samples per call, over all devices: a power of two, so that signals of many shapes share few programs."""
PADDED_LAYERS, PADDED_WEIGHTS = 64, 2**20
"""Weights are padded to those of so many layers, but to no more than so many."""
SINE_WORK = 16
"""Multiplications that one sine of an encoding or a layer counts for."""

Coordinates = Callable[[tuple[int, ...], int, int], np.ndarray]
Observe = Callable[[Callable[[Any], Any], Any], Any]
Network = tuple[Float[Array, " p"], Any, Any]
"""(weights in the order of `siren.flatten`, padded; number of layers before the output; scale ω₀)."""


def work(field: FieldConfig, shape: Sequence[int], evaluations: int = 1) -> int:
    """Multiplications that evaluating a network at all samples of a shape takes; a sine counts for `SINE_WORK`.

    evaluations: points of the field that a sample takes.
    """
    sizes = field.sizes()
    sines = sum(fan_out for _, fan_out in sizes[:-1]) + (encoded_dim(field) if field.encoding != "none" else 0)
    return (siren.num_weights(sizes) + SINE_WORK * sines) * math.prod(shape) * evaluations


def check_work(field: FieldConfig, shape: Sequence[int], evaluations: int = 1) -> None:
    """ValueError where evaluating a network at all samples of a shape takes over `MAX_WORK` multiplications.

    Over what readers take by default, a warning is logged that names the option they need.
    """
    multiplications, samples = work(field, shape, evaluations), "×".join(map(str, shape))
    if multiplications > MAX_WORK:
        raise ValueError(
            f"a network of {field.num_layers} × {field.width} at {samples} samples takes {multiplications} multiplications to "
            f"decode; the limit is {MAX_WORK}: choose a smaller one"
        )
    if multiplications > DEFAULT_MAX_WORK:
        _log.warning("decoding %s samples takes %d multiplications: readers need --max-work", samples, multiplications)


def at_unit_frequency(field: FieldConfig, weights: np.ndarray) -> np.ndarray:
    """Weights [p] that mean at ω₀ = 1 what ``weights`` mean in a field: sin(ω₀ (h W + b)) = sin(h (ω₀ W) + ω₀ b)."""
    if field.activation != "sine":
        return weights
    inner = siren.num_weights(field.sizes()[:-1])
    with np.errstate(over="ignore"):
        return np.concatenate([np.float32(field.omega_0) * weights[:inner], weights[inner:]])


def network_pieces(
    fields: Sequence[FieldConfig],
    weights: Iterable[np.ndarray],
    grids: Sequence[Grid],
    coordinates: Coordinates,
    unit_frequency: bool = True,
    observe: Observe | None = None,
    evaluations: int = 1,
) -> Iterator[Piece]:
    """Values of whole signals, each a network of its own, a chunk of samples at a time.

    Args:
      fields: one per signal, without ``last_width``.
      weights: one [p] per signal, in the order of `siren.flatten`; taken one at a time.
      grids: one per signal, a single patch of its own shape.
      coordinates: of samples from and to, of a shape: a modality's.
      unit_frequency: whether weights are taken `at_unit_frequency`; it rounds otherwise than a layer of any ω₀ does.
      observe: samples at coordinates of a network, a modality's; None: the network's values are the samples.
      evaluations: points of the network that a sample takes.
    """
    devices = local_mesh().size
    for i, (field, row, grid) in enumerate(zip(fields, weights, grids, strict=True)):
        samples = math.prod(grid.shape)
        chunk = -(-_chunk(field, samples, devices, evaluations) // devices) * devices
        scale = np.float32(1.0 if unit_frequency else field.nonlinearity()[0])
        row = at_unit_frequency(field, row) if unit_frequency else row
        padded = np.pad(row, (0, max(0, _capacity(field) - len(row))))
        network = replicate((padded, np.int32(field.num_layers), scale), local_mesh())
        run = program(_program_key(field), observe)
        before: tuple[int, Any] | None = None
        # One call runs while the values of the one before are used.
        for start in range(0, samples, chunk):
            coords = coordinates(grid.shape, start, min(start + chunk, samples))
            if len(coords) < chunk:
                coords = np.concatenate([coords, np.repeat(coords[-1:], chunk - len(coords), axis=0)])
            with jax.default_matmul_precision("float32"):
                values = run(network, coords)
            if before is not None:
                yield Piece(i, before[0], np.asarray(before[1]))
            before = start, values
        yield Piece(i, before[0], np.asarray(before[1])[: samples - before[0]])


def network_values(field: FieldConfig, network: Network, coords: Float[Array, "m d"]) -> Float[Array, "m c"]:
    """Values at coordinates in [-1, 1] of a network of any number of layers; of ``field``, those and ω₀ are not looked at."""
    weights, num_layers, omega_0 = network
    function = field.nonlinearity()[1]
    inputs, width, channels = encoded_dim(field), field.width, field.channels
    # Narrow layers with a column per coordinate: see `siren.NARROW`.
    columns = max(width, channels) <= siren.NARROW

    def layer(hidden: jax.Array, start: Any, fan_in: int, fan_out: int) -> jax.Array:
        kernel = jax.lax.dynamic_slice(weights, (start,), (fan_in * fan_out,)).reshape(fan_in, fan_out)
        bias = jax.lax.dynamic_slice(weights, (start + fan_in * fan_out,), (fan_out,))
        return kernel.T @ hidden + bias[:, None] if columns else hidden @ kernel + bias

    first, each = (inputs + 1) * width, (width + 1) * width
    hidden = encode(field, coords)
    hidden = function(omega_0 * layer(hidden.T if columns else hidden, 0, inputs, width))
    hidden = jax.lax.fori_loop(
        0, num_layers - 1, lambda i, hidden: function(omega_0 * layer(hidden, first + i * each, width, width)), hidden
    )
    values = layer(hidden, first + (num_layers - 1) * each, width, channels)
    return values.T if columns else values


@functools.lru_cache(maxsize=64)
def program(field: FieldConfig, observe: Observe | None = None) -> Any:
    """`network_values`, compiled and spread over this process's devices: (network, coords [m, d]) → values [m, c].

    observe: see `network_pieces`.
    """

    def observed(network: Network, coords: jax.Array) -> jax.Array:
        return observe(functools.partial(network_values, field, network), coords)

    function = functools.partial(network_values, field) if observe is None else observed
    return pmapped(function, (None, 0), mesh=local_mesh())


def _program_key(field: FieldConfig) -> FieldConfig:
    """The field without what its program is told, or does not look at."""
    same: dict[str, Any] = {"num_layers": 1, "omega_0": 1.0}
    if field.encoding == "none":
        same |= {"num_frequencies": 1, "encoding_scale": 1.0}
    return dataclasses.replace(field, **same)


def _chunk(field: FieldConfig, samples: int, devices: int, evaluations: int) -> int:
    widest = max(field.width, encoded_dim(field)) * evaluations
    most = 1 << (max(1, min(NUMBERS_PER_DEVICE * devices, NUMBERS_AT_ONCE) // widest).bit_length() - 1)
    return min(LARGEST_CHUNK, most, max(SMALLEST_CHUNK, 1 << (samples - 1).bit_length()))


def _capacity(field: FieldConfig) -> int:
    deep = dataclasses.replace(field, num_layers=PADDED_LAYERS)
    return min(PADDED_WEIGHTS, siren.num_weights(deep.sizes()))
