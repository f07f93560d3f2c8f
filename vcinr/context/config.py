"""The config of contextual compression."""

from __future__ import annotations

import dataclasses

from vcinr.context.order import Order
from vcinr.stage import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ContextualConfig:
    """Config of `vcinr.context.compression.ContextualCompression`.

    kind: "contextual".
    lambdas: λ of each operating point, ascending; loss = bits per value + λ · 255² · MSE.
    groups: where each group of latent dimensions ends, ascending; the last is the latent's length.
    neighbour_dims: leading latent dimensions of a patch that the contexts of its neighbours see; 0 or more.
    octaves: the first group starts on a lattice of every 2^octaves-th patch along each axis; 0 to 8.
    width: hidden units per group of the prior.
    synthesis_width: units of each hidden layer of the synthesis.
    rounding: of the encoder, "rate_distortion" or "nearest".
    crop: samples of one training example along each axis, whole patches; () for one patch.
    num_latents: largest number of training crops.
    offsets_per_picture: random grids of crops per training picture.
    num_counted: training crops that the tables of each point are counted on.
    training: of prior and synthesis.
    """

    kind: str = "contextual"
    lambdas: tuple[float, ...] = (0.002, 0.006, 0.02)
    groups: tuple[int, ...] = (3, 6, 12, 24, 48, 64)
    neighbour_dims: int = 96
    octaves: int = 2
    width: int = 96
    synthesis_width: int = 256
    rounding: str = "rate_distortion"
    crop: tuple[int, ...] = ()
    num_latents: int = 5000
    offsets_per_picture: int = 2
    num_counted: int = 500
    training: TrainingConfig = TrainingConfig(num_steps=1500, batch_size=32, lr=2e-3, average_decay=0.99)

    def __post_init__(self):
        if list(self.lambdas) != sorted(set(self.lambdas)) or not self.lambdas or self.lambdas[0] <= 0:
            raise ValueError(f"lambdas must be positive and rise; got {self.lambdas}")
        if self.rounding not in ("rate_distortion", "nearest"):
            raise ValueError(f"unknown rounding {self.rounding!r}; valid are nearest, rate_distortion")
        _ = self.order

    def check_patch(self, patch: tuple[int, ...], latent_size: int) -> None:
        """ValueError where the groups are not those of the latent, or a crop is not whole patches."""
        if self.groups[-1] != latent_size:
            raise ValueError(f"compression.groups must end at the latent's {latent_size} dimensions, not at {self.groups[-1]}")
        if self.crop and (len(self.crop) != len(patch) or any(a < b or a % b for a, b in zip(self.crop, patch, strict=True))):
            raise ValueError(f"compression.crop must be whole patches of {patch} along each axis, not {self.crop}")

    @property
    def order(self) -> Order:
        """The order of coding."""
        return Order(self.groups, self.neighbour_dims, self.octaves)
