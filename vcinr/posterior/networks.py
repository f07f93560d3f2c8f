"""Networks whose parameters are random: COMBINER's, and COMBINER+'s with its linear transform and positional encoding.

A network turns the vector v of a patch into the patch's values. `WeightNetwork` takes v for its weights; `TransformedNetwork`
takes v = (h, z) (He 2023, section 4.1.3). Both are hashable, so that compiled programs are kept per network.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.fields import siren
from vcinr.fields.encodings import encode
from vcinr.fields.field import FieldConfig
from vcinr.posterior.gaussians import Gaussian, draw

SMALLEST_VARIANCE = 1e-12
"""Added under the square root of a unit's variance, whose derivative at 0 is infinite."""


@dataclasses.dataclass(frozen=True)
class PositionalConfig:
    """Config of the learned positional encoding (He 2023, section 4.1.2).

    channels: C_z of the latent z; 0: there is no positional encoding.
    stride: samples of the patch along each axis per entry of z, a power of two.
    widths: channels after each doubling of the grid but the last; short lists repeat their last entry.
    outputs: D₀, channels of the encoding.
    """

    channels: int = 128
    stride: int = 16
    widths: tuple[int, ...] = (64, 32, 16)
    outputs: int = 16

    def __post_init__(self):
        if self.channels < 0 or self.outputs < 1 or min(self.widths, default=0) < 1:
            raise ValueError("positional needs channels ≥ 0, outputs ≥ 1 and at least one width ≥ 1")
        if self.stride < 2 or self.stride & (self.stride - 1):
            raise ValueError(f"positional.stride is a power of two from 2, not {self.stride}")

    @property
    def kernels(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each convolution; each follows a doubling of the grid."""
        doublings = self.stride.bit_length() - 1
        inner = [self.widths[min(i, len(self.widths) - 1)] for i in range(doublings - 1)]
        channels = [self.channels, *inner, self.outputs]
        return list(itertools.pairwise(channels))


def upsample(kernels: list[tuple[Any, Any]], grid: Float[Array, "*shape c"]) -> Float[Array, "*finer o"]:
    """φ_CNN: per (kernel, bias), the grid doubled along every axis (nearest), a 3-wide convolution, LeakyReLU but at last."""
    rank = grid.ndim - 1
    axes = "TUVWXYZ"[:rank]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    for i, (kernel, bias) in enumerate(kernels):
        for axis in range(rank):
            grid = jnp.repeat(grid, 2, axis=axis)
        grid = jax.lax.conv_general_dilated(grid[None], kernel, (1,) * rank, "SAME", dimension_numbers=numbers)[0] + bias
        if i + 1 < len(kernels):
            grid = jax.nn.leaky_relu(grid)
    return grid


def random_values(field: FieldConfig, q: Gaussian, inputs: Float[Array, "n e"], key: jax.Array) -> Float[Array, "n c"]:
    """Values for a sample of the weights, drawn unit by unit and coordinate by coordinate.

    The local reparametrisation (Kingma et al. 2015, section 2.3): a unit's sum is Gaussian given its inputs, and each coordinate
    gets a draw of its own, which lowers the variance of gradients.

    q: Gaussian over the weights [P], in the order of `siren.flatten`.
    """
    scale, function = field.nonlinearity()
    means, scales = (siren.unflatten(part, field.sizes()) for part in q)
    hidden, keys = inputs.T, jax.random.split(key, len(means))
    for i, ((kernel, bias), (kernel_scale, bias_scale)) in enumerate(zip(means, scales, strict=True)):
        mean = kernel.T @ hidden + bias[:, None]
        variance = jnp.square(kernel_scale).T @ jnp.square(hidden) + jnp.square(bias_scale)[:, None]
        total = mean + jnp.sqrt(variance + SMALLEST_VARIANCE) * jax.random.normal(keys[i], mean.shape, mean.dtype)
        hidden = total if i + 1 == len(means) else function(scale * total)
    return hidden.T


@dataclasses.dataclass(frozen=True)
class WeightNetwork:
    """COMBINER's network: v holds its weights (He 2023, chapter 3).

    field: a field without modulation.   patch: samples per patch along each axis.
    """

    field: FieldConfig
    patch: tuple[int, ...]

    def sizes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer."""
        return self.field.sizes()

    @property
    def num_weights(self) -> int:
        """Entries of v that stand for weights, layer after layer."""
        return siren.num_weights(self.sizes())

    @property
    def size(self) -> int:
        """Length of v."""
        return self.num_weights

    @property
    def num_features(self) -> int:
        """Inputs that a sample has besides its encoded coordinates."""
        return 0

    def init(self, key: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        """(what all signals share: nothing, mean of the first posteriors [size]): SIREN's initial weights (table C.1)."""
        return {}, siren.flatten(siren.init_layers(key, self.sizes(), *self._start()))

    def typical_scale(self) -> np.ndarray:
        """Standard deviation of the initial entries of v over random starts, [size]; at the output bias that of its fan-in."""
        scales = []
        for i, (fan_in, fan_out) in enumerate(self.sizes()):
            kernel = siren.kernel_bound(i, fan_in, self.field.omega_0, self.field.activation) / 3**0.5
            scales += [np.full(fan_in * fan_out, kernel), np.full(fan_out, (3 * fan_in) ** -0.5)]
        return np.concatenate(scales).astype(np.float32)

    def random(self, shared: Any, q: Gaussian, inputs: Any, counts: tuple[int, ...], key: jax.Array) -> Float[Array, "p n c"]:
        """Values of all patches of a signal for one draw of v ~ q, [p, size]."""
        del shared, counts
        keys = jax.random.split(key, len(q.mean))
        return jax.vmap(lambda mean, scale, k: random_values(self.field, Gaussian(mean, scale), inputs, k))(*q, keys)

    def features(self, shared: Any, v: Float[Array, "p size"], counts: tuple[int, ...]) -> None:
        """What the whole signal adds to the inputs of its patches: nothing."""
        del shared, v, counts

    def values(self, shared: Any, v: Float[Array, " size"], features: None, inputs: Any) -> Float[Array, "n c"]:
        """Values of one patch."""
        del shared, features
        scale, function = self.field.nonlinearity()
        return siren.apply(siren.unflatten(v, self.sizes()), inputs, scale, function)

    def inputs(self, coords: Any) -> Float[Array, "n e"]:
        """Encoded coordinates of one patch."""
        return encode(self.field, jnp.asarray(coords))

    def _start(self) -> tuple[float, float, str]:
        return self.field.omega_0, self.field.output_bias, self.field.activation


@dataclasses.dataclass(frozen=True)
class TransformedNetwork(WeightNetwork):
    """COMBINER+'s network: v = (h, z), weights w = A h layer by layer, and an encoding of position made from z (chapter 4).

    transform: whether there is an A; without it w = h.
    positional: the learned positional encoding, which is joined to the encoded coordinates.
    """

    transform: bool = True
    positional: PositionalConfig = PositionalConfig()

    def __post_init__(self):
        if self.positional.channels and any(n % self.positional.stride for n in self.patch):
            raise ValueError(f"a patch of {self.patch} does not divide by positional.stride = {self.positional.stride}")

    def sizes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer; the first reads the positional encoding too."""
        (fan_in, fan_out), *rest = self.field.sizes()
        return [(fan_in + self.num_features, fan_out), *rest]

    @property
    def num_features(self) -> int:
        return self.positional.outputs if self.positional.channels else 0

    @property
    def latent_grid(self) -> tuple[int, ...]:
        """Entries of z along each axis of a patch."""
        return tuple(n // self.positional.stride for n in self.patch)

    @property
    def size(self) -> int:
        return self.num_weights + math.prod(self.latent_grid) * self.positional.channels

    def init(self, key: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        """(A of each layer and the convolutions, mean of the first posteriors), as section 4.2.1 and equations 4.13 and 4.14."""
        # Two for each layer, one for each convolution, and one for z.
        keys = iter(jax.random.split(key, 2 * len(self.sizes()) + len(self.positional.kernels) + 1))
        shared: dict[str, Any] = {}
        parts = []
        if self.transform:
            for i, (count, bound) in enumerate(zip(self._counts(), self._bounds(), strict=True)):
                parts.append(jax.random.uniform(next(keys), (count,), minval=-bound, maxval=bound))
                shared[f"transform_{i}"] = jax.random.uniform(next(keys), (count, count), minval=-1e-3, maxval=1e-3)
            shared["output_bias"] = jnp.full((self.field.channels,), self.field.output_bias)
        else:
            parts.append(super().init(next(keys))[1])
        if self.positional.channels:
            rank = len(self.patch)
            for i, (inputs, outputs) in enumerate(self.positional.kernels):
                bound = (6.0 / (inputs * 3**rank)) ** 0.5
                kernel = jax.random.uniform(next(keys), (3,) * rank + (inputs, outputs), minval=-bound, maxval=bound)
                shared[f"upsample_{i}"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
            parts.append(0.1**0.5 * jax.random.normal(next(keys), (self.size - self.num_weights,)))
        return shared, jnp.concatenate(parts)

    def typical_scale(self) -> np.ndarray:
        """Standard deviation of the initial entries of v over random starts, [size]."""
        weights = [super().typical_scale()]
        if self.transform:
            weights = [np.full(n, bound / 3**0.5) for n, bound in zip(self._counts(), self._bounds(), strict=True)]
        return np.concatenate([*weights, np.full(self.size - self.num_weights, 0.1**0.5)]).astype(np.float32)

    def random(self, shared: Any, q: Gaussian, inputs: Any, counts: tuple[int, ...], key: jax.Array) -> Float[Array, "p n c"]:
        """As `WeightNetwork.random`; w = A h is not factorized, so weights are drawn and not units (section 4.1.3)."""
        v = draw(key, q)
        features = self.features(shared, v, counts)
        # Where there are no features, None is a tree without leaves, and nothing is mapped over.
        return jax.vmap(lambda v, own: self.values(shared, v, own, inputs))(v, features)

    def features(self, shared: Any, v: Float[Array, "p size"], counts: tuple[int, ...]) -> Float[Array, "p n o"] | None:
        """Positional encoding of each patch: z of all patches is put together and goes through the convolutions as a whole.

        counts: patches along each axis.
        """
        if not self.positional.channels:
            return None
        rank, small = len(self.patch), self.latent_grid
        z = v[:, self.num_weights :].reshape(*counts, *small, self.positional.channels)
        pairs = [axis for i in range(rank) for axis in (i, rank + i)]
        whole = z.transpose(*pairs, 2 * rank).reshape(*(a * b for a, b in zip(counts, small, strict=True)), -1)
        layers = [shared[f"upsample_{i}"] for i in range(len(self.positional.kernels))]
        fine = upsample([(layer["kernel"], layer["bias"]) for layer in layers], whole)
        interleaved = [n for pair in zip(counts, self.patch, strict=True) for n in pair]
        order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank]
        return fine.reshape(*interleaved, -1).transpose(order).reshape(v.shape[0], math.prod(self.patch), -1)

    def values(self, shared: Mapping[str, Any], v: Any, features: Any, inputs: Any) -> Float[Array, "n c"]:
        """Values of one patch: features [n, o] are its positional encoding, or None."""
        weights = v[: self.num_weights]
        if self.transform:
            parts = jnp.split(weights, np.cumsum(self._counts())[:-1])
            weights = jnp.concatenate([shared[f"transform_{i}"] @ part for i, part in enumerate(parts)])
        if features is not None:
            inputs = jnp.concatenate([features, inputs], axis=-1)
        found = super().values(shared, weights, None, inputs)
        return found + shared["output_bias"] if self.transform else found

    @property
    def bytes_per_sample(self) -> int:
        """Memory of the positional encoding of a whole signal, per sample: what the last convolution reads and writes."""
        return 4 * 2 * sum(self.positional.kernels[-1]) if self.positional.channels else 0

    def _counts(self) -> list[int]:
        """Weights of each layer."""
        return [(fan_in + 1) * fan_out for fan_in, fan_out in self.sizes()]

    def _bounds(self) -> list[float]:
        """Of the first entries of h, layer by layer (equation 4.14)."""
        return [1.0 / fan_in if i == 0 else (6.0 / fan_in) ** 0.5 for i, (fan_in, _) in enumerate(self.sizes())]


def distortion(
    network: WeightNetwork,
    shared: Any,
    q: Gaussian,
    inputs: Any,
    values: Float[Array, "p n c"],
    weight: Float[Array, "p n"] | None,
    counts: tuple[int, ...],
    key: jax.Array,
    num_samples: int = 1,
) -> Float[Array, ""]:
    """Expected distortion of a signal, estimated from samples: for each patch the mean over samples and channels, then the sum.

    The mean squared error (not the sum of the thesis's equation 3.2) is what its values of β belong to.
    """

    def one(key: jax.Array) -> jax.Array:
        error = jnp.mean(jnp.square(network.random(shared, q, inputs, counts, key) - values), axis=-1)
        error = error if weight is None else error * weight
        return jnp.sum(jnp.mean(error, axis=-1))

    if num_samples == 1:
        return one(key)
    return jnp.mean(jax.vmap(one)(jax.random.split(key, num_samples)))
