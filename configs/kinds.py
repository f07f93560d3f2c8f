"""Kinds of signal besides colour pictures: what each codec's demo of one is trained on, `configs/CODEC.py:demo_KIND`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vcinr.modalities import MODALITIES


@dataclasses.dataclass(frozen=True)
class Kind:
    """Data and sizes of one kind of signal.

    data: overrides of `configs.base.DATA`.
    patch: samples of a patch along each axis.
    latent_dim: numbers per patch.
    omega_0: frequency scale ω₀ of a field.
    lambdas: of VC-INR's operating points.
    num_steps: of VC-INR's field.
    bottleneck_steps: training steps of VC-INR's bottleneck per operating point.
    num_latents: patches that VC-INR's bottleneck is trained on.
    klt_components: of the linear floor, at most the values of a patch.
    klt_steps: quantisation steps of the linear floor, in 255ths of the range.
    combiner_patch: samples of a patch of COMBINER+ along each axis; (): it has no demo.
    combiner_stride: samples per entry of its positional latent, a power of two.
    betas: of its operating points.
    architectures: (depth, width) of COIN's operating points.
    klt_patch: samples of a patch of the linear floor; (): those of the others.
    vc_inr: keys of VC-INR's config that differ from those of all kinds.
    modality: key of `MODALITIES`; "" for that of the kind's own name.
    """

    data: Mapping[str, Any]
    patch: tuple[int, ...]
    latent_dim: int
    omega_0: float = 30.0
    lambdas: tuple[float, ...] = (0.0002, 0.0008, 0.003, 0.01)
    num_steps: int = 6000
    bottleneck_steps: int = 400
    num_latents: int = 2000
    klt_components: int = 200
    klt_steps: tuple[float, ...] = (40.0, 20.0, 10.0, 5.0, 2.5, 1.25)
    combiner_patch: tuple[int, ...] = ()
    combiner_stride: int = 8
    betas: tuple[float, ...] = (1e-5, 1e-6, 1e-7)
    klt_patch: tuple[int, ...] = ()
    vc_inr: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    architectures: tuple[tuple[int, int], ...] = ((3, 20), (3, 40))
    modality: str = ""

    def values(self, name: str) -> dict[str, Any]:
        """What configs of patches say of this kind."""
        return {"modality": self.modality or name, "patch": self.patch}

    def field(self, name: str) -> dict[str, Any]:
        """What a field says of this kind."""
        row = MODALITIES[self.modality or name]
        return {"coord_dim": row.coord_dim, "channels": row.outputs, "omega_0": self.omega_0, "latent_dim": self.latent_dim}


COARSE = (320.0, 160.0, 80.0, 40.0, 20.0, 10.0)
"""Steps of the linear floor where the rates of the others are low."""

KINDS: dict[str, Kind] = {
    "sound": Kind(
        {"name": "speech"},
        (200,),
        64,
        lambdas=(0.005, 0.015, 0.05, 0.15),
        num_steps=30_000,
        bottleneck_steps=1500,
        num_latents=4000,
        combiner_patch=(800,),
        combiner_stride=16,
    ),
    "climate": Kind({"name": "climate_global"}, (46, 90), 48, lambdas=(0.0005, 0.002, 0.008, 0.03), num_steps=12_000),
    "climate_region": Kind(
        {"name": "era5_region"}, (43, 48), 64, lambdas=(0.001, 0.004, 0.015, 0.05), num_steps=12_000, klt_steps=COARSE
    ),
    "video": Kind({"name": "clips"}, (4, 16, 16), 96, lambdas=(0.0001, 0.0003, 0.001, 0.003), klt_steps=COARSE),
    "voxels": Kind(
        {"name": "modelnet10_30", "test_limit": 64},
        (15, 15, 15),
        64,
        lambdas=(1e-5, 4e-5, 1.5e-4, 6e-4),
        combiner_patch=(16, 16, 16),
    ),
    "distance_field": Kind({"name": "modelnet10_sdf", "test_limit": 64}, (15, 15, 15), 32, lambdas=(0.0005, 0.002, 0.008, 0.03)),
    "distance_field_2d": Kind({"name": "silhouettes_sdf", "test_limit": 64}, (30, 30), 32, lambdas=(0.0005, 0.002, 0.008, 0.03)),
    "radiance_field": Kind(
        {"name": "scenes", "flips": False},
        (12, 32, 32),
        64,
        omega_0=10.0,
        lambdas=(3e-5, 1e-3),
        num_latents=300,
        klt_patch=(1, 8, 8),
        klt_components=128,
        klt_steps=(120.0, 60.0, 30.0, 15.0),
        vc_inr={
            # The curvature of whole scenes takes minutes to measure, so the inner loop's rate is given.
            "adaptation": {"num_steps": 3, "subset": 256, "inner_lr": 10.0, "step_rate": 10.0},
            "amortised": {"enabled": False},
            "meta": {
                "num_steps": 400,
                "batch_size": 4,
                "lr": 2e-3,
                "warmup_steps": 20,
                "eval_every": 100,
                "checkpoint_every": 100,
            },
            "compression": {
                "lambdas": (3e-5, 1e-3),
                "width": 64,
                "num_latents": 300,
                "offsets_per_picture": 1,
                "training": {"num_steps": 60, "batch_size": 4, "warmup_steps": 10, "checkpoint_every": 60},
            },
            "encode_batch": 4,
        },
    ),
    "scanner_volume": Kind({"name": "scanners"}, (8, 16, 16), 64, lambdas=(0.0003, 0.001, 0.004, 0.015)),
}


def demos(of_kind: Callable[[str, Kind], ConfigDict], prefix: str = "demo") -> dict[str, Callable[[], ConfigDict]]:
    """Variants ``demo_KIND`` of a codec's config file."""
    return {f"{prefix}_{name}": functools.partial(of_kind, name, kind) for name, kind in KINDS.items()}
