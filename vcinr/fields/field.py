"""Fields f(x; θ, φ): Flax modules that declare θ and hand it to the functions beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vcinr.fields import modulations, siren
from vcinr.fields.encodings import ENCODINGS, encode, encoded_dim
from vcinr.fields.sine import DOMAIN, SINES
from vcinr.fields.siren import Layer

ACTIVATIONS = ("sine", "relu")


@dataclasses.dataclass(frozen=True)
class FieldConfig:
    """Config of a field: its layers, and how the latent modulates them.

    Never change a default: fingerprints store only the keys that differ from it (`described`).

    coord_dim: number of coordinates d, at least 1.
    channels: number of values per sample c, at least 1.
    num_layers: sine layers before the linear output layer, at least 1.
    width: units per sine layer, at least 1.
    omega_0: frequency scale ω₀ of the sines, positive.
    latent_dim: length of φ, at least 1; ignored where the modulation fixes it (see `latent_size`).
    modulation: key of `FIELDS`.
    sine: key of `SINES`.
    rank: rank r of the low-rank gates, at least 1.
    gate_gain: factor of the low-rank gates; 2 makes neutral gates leave the kernels unchanged.
    hyper_width: units of the residual network that maps φ to the gates' U and V, at least 1.
    hyper_depth: residual blocks of that network.
    output_bias: initial bias of the output layer; ½ is the middle of [0, 1].
    linear_head: whether the output layer is, in addition, linear in the latent; see `vcinr.fields.modulations.linear_head`. All
        components together span at most ``last_width`` functions of the coordinates.
    last_width: units of the last sine layer; 0: ``width``.
    encoding: key of `ENCODINGS`.
    num_frequencies: L of the encoding, at least 1.
    encoding_scale: σ of the encoding, positive.
    activation: "sine", or "relu", which ignores ω₀.
    gate_first: whether low_rank_gates gates the first sine layer too, whose kernel reads coordinates.
    projection_gain: scale of the initial map of latent_shifts, whose standard deviation is projection_gain / (ω₀ √k); positive.
    """

    coord_dim: int = 2
    channels: int = 3
    num_layers: int = 5
    width: int = 64
    omega_0: float = 30.0
    latent_dim: int = 64
    modulation: str = "low_rank_gates"
    sine: str = "fast"
    rank: int = 4
    gate_gain: float = 2.0
    hyper_width: int = 128
    hyper_depth: int = 2
    output_bias: float = 0.5
    linear_head: bool = False
    last_width: int = 0
    encoding: str = "none"
    num_frequencies: int = 16
    encoding_scale: float = 1.4
    activation: str = "sine"
    projection_gain: float = 1.0
    gate_first: bool = False

    def __post_init__(self):
        tables = ((self.modulation, FIELDS), (self.sine, SINES), (self.encoding, ENCODINGS), (self.activation, ACTIVATIONS))
        for key, table in tables:
            if key not in table:
                raise ValueError(f"unknown {key!r}; valid are {', '.join(sorted(table))}")
        for key in ("coord_dim", "channels", "num_layers", "width", "latent_dim", "rank", "hyper_width", "num_frequencies"):
            if getattr(self, key) < 1:
                raise ValueError(f"field.{key} must be at least 1, not {getattr(self, key)}")
        if self.last_width < 0:
            raise ValueError(f"field.last_width must be 0 or at least 1, not {self.last_width}")
        for key in ("omega_0", "projection_gain"):
            if not 0 < getattr(self, key) < float("inf"):
                raise ValueError(f"field.{key} must be positive and finite, not {getattr(self, key)}")
        if not 0 < self.encoding_scale < float("inf"):
            raise ValueError(f"field.encoding_scale must be positive and finite, not {self.encoding_scale}")
        highest = ENCODINGS[self.encoding].highest(self.coord_dim, self.num_frequencies, self.encoding_scale)
        if highest > DOMAIN:
            raise ValueError(
                f"the {self.encoding} encoding reaches angles of {highest:.3g}, where float32 has lost the phase; "
                f"lower field.num_frequencies or field.encoding_scale until they end under {DOMAIN:g}"
            )

    def sizes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer; the first layer takes encoded coordinates."""
        return siren.layer_sizes(encoded_dim(self), self.channels, self.num_layers, self.width, self.last_width)

    def latent_size(self) -> int:
        """Length of φ: ``latent_dim``, or the length that the modulation fixes."""
        return FIELDS[self.modulation].latent_size(self)

    def nonlinearity(self) -> tuple[float, Callable[[jax.Array], jax.Array]]:
        """(scale, function): every layer but the last computes function(scale · (h W + b))."""
        return (1.0, jax.nn.relu) if self.activation == "relu" else (self.omega_0, SINES[self.sine])

    def described(self) -> dict[str, Any]:
        """The keys that differ from their defaults; a file's fingerprint covers these, so that new keys leave it unchanged."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}


def _uniform(bound: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Siren(nn.Module):
    """A SIREN's own layers; subclasses define how a latent changes them.

    `layers` makes the layers of one signal (called once per signal), `__call__` evaluates them (once per chunk of coordinates).
    """

    config: FieldConfig

    @staticmethod
    def latent_size(config: FieldConfig) -> int:
        """Length of φ; modulations that fix it override this."""
        return config.latent_dim

    def setup(self):
        c = self.config
        self.base = [
            (
                self.param(f"kernel_{i}", _uniform(siren.kernel_bound(i, fan_in, c.omega_0, c.activation)), (fan_in, fan_out)),
                self.param(
                    f"bias_{i}",
                    _uniform(fan_in**-0.5) if i < c.num_layers else nn.initializers.constant(c.output_bias),
                    (fan_out,),
                ),
            )
            for i, (fan_in, fan_out) in enumerate(c.sizes())
        ]

        if c.linear_head:
            fan_in, k = c.sizes()[-1][0], c.latent_size()
            self.head_kernel = self.param("head_kernel", _uniform(1.0 / fan_in / c.omega_0), (k, fan_in, c.channels))
            self.head_bias = self.param("head_bias", nn.initializers.zeros, (k, c.channels))

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """The layers as modulated by the latent, without the linear head; here the shared layers, whatever the latent."""
        del latent
        return self.base

    def layers(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """The layers of the signal with this latent, linear head included."""
        layers = self.modulate(latent)
        if not self.config.linear_head:
            return layers
        return modulations.linear_head(layers, self.head_kernel, self.head_bias, latent)

    def __call__(self, coords: Float[Array, "*n d"], latent: Float[Array, " k"]) -> Float[Array, "*n c"]:
        """f(x; θ, φ) at coordinates in [-1, 1]."""
        return evaluate(self.config, self.layers(latent), coords)


class LatentShiftField(Siren):
    """SIREN with shifts linear in the latent (COIN++, Functa)."""

    def setup(self):
        super().setup()
        c = self.config
        self.projection = self.param(
            "projection",
            nn.initializers.variance_scaling((c.projection_gain / c.omega_0) ** 2, "fan_in", "normal"),
            (c.latent_dim, sum(fan_out for _, fan_out in c.sizes()[:-1])),
        )

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers with their biases shifted."""
        return modulations.latent_shifts(self.base, self.projection, latent)


class ShiftField(Siren):
    """SIREN whose latent holds the shifts of all layers but the last (Schwarz and Teh 2022, section 3.3.2)."""

    @staticmethod
    def latent_size(config: FieldConfig) -> int:
        """One number per unit."""
        return sum(fan_out for _, fan_out in config.sizes()[:-1])

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers with their biases shifted."""
        return modulations.shifts(self.base, modulations.split_units(self.base, latent))


class WeightUpdateField(Siren):
    """SIREN whose latent is the change of all its weights, in the order of `siren.flatten` (Strümpler et al. 2022)."""

    @staticmethod
    def latent_size(config: FieldConfig) -> int:
        """One number per weight."""
        return siren.num_weights(config.sizes())

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers plus the update."""
        return modulations.weight_update(self.base, latent)


class ResidualNetwork(nn.Module):
    """Pre-LayerNorm residual blocks on φ: h ← h + A gelu(B LayerNorm(h)) (Schwarz et al. 2023, figure 1a).

    The embedding's bias has unit variance, so that the first LayerNorm's input has unit size at φ = 0; at a zero input its
    Jacobian would be about 1/√eps. The blocks' last kernels start at zero, so every block starts as the identity.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, latent: Float[Array, " k"]) -> Float[Array, " h"]:
        hidden = nn.Dense(self.width, bias_init=nn.initializers.normal(1.0), name="embed")(latent)
        for i in range(self.depth):
            update = nn.gelu(nn.Dense(self.width, name=f"expand_{i}")(nn.LayerNorm(name=f"norm_{i}")(hidden)))
            hidden = hidden + nn.Dense(self.width, kernel_init=nn.initializers.zeros, name=f"contract_{i}")(update)
        return nn.LayerNorm(name="norm_out")(hidden)


class LowRankGateField(Siren):
    """SIREN with soft low-rank gates on its hidden layers: sin(ω₀((gain · sigmoid(U Vᵀ) ⊙ W) h + b)).

    A residual network makes U and V from φ (Schwarz et al. 2023, section 3.1). U's head starts small and has no bias, V's head
    has a bias of unit variance: the gates start near neutral, yet the gradient of U does not vanish.
    """

    def setup(self):
        super().setup()
        c = self.config
        shapes = c.sizes()[not c.gate_first : -1]
        self.network = ResidualNetwork(c.hyper_width, c.hyper_depth)
        small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.left_heads = [nn.Dense(fan_in * c.rank, use_bias=False, kernel_init=small) for fan_in, _ in shapes]
        self.right_heads = [
            nn.Dense(fan_out * c.rank, kernel_init=small, bias_init=nn.initializers.normal(1.0)) for _, fan_out in shapes
        ]

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers with their kernels gated."""
        c = self.config
        features = self.network(latent)
        left = [head(features).reshape(-1, c.rank) for head in self.left_heads]
        right = [head(features).reshape(-1, c.rank) for head in self.right_heads]
        return modulations.low_rank_gates(self.base, left, right, c.gate_gain, c.gate_first)


FIELDS: dict[str, type[Siren]] = {
    "none": Siren,
    "latent_shifts": LatentShiftField,
    "low_rank_gates": LowRankGateField,
    "shifts": ShiftField,
    "weight_update": WeightUpdateField,
}
"""`FieldConfig.modulation` → field. A new modulation is a new entry; see docs/extending.md."""


def make_field(config: FieldConfig) -> Siren:
    """The Flax module of a config."""
    return FIELDS[config.modulation](config)


def evaluate(config: FieldConfig, layers: Sequence[Layer], coords: Float[Array, "*n d"]) -> Float[Array, "*n c"]:
    """Values of the field with these layers at coordinates in [-1, 1]."""
    return siren.apply(layers, encode(config, coords), *config.nonlinearity())
