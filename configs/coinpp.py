"""COIN++ (Dupont et al. 2022): `--config=configs/coinpp.py:NAME`, NAME one of demo, cifar10_small, cifar10, kodak."""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.kinds import Kind, demos


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/coinpp.py:demo --workdir=runs/coinpp_demo`, then
    `python -m experiments.evaluate --workdir=runs/coinpp_demo --out=runs/coinpp_demo/rd.json`. Results: docs/results.md.
    """
    return make_config(
        "coinpp",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {"num_layers": 4, "width": 64, "omega_0": 30.0, "latent_dim": 64},
            "adaptation": {"encode_steps": 10, "subset": 256, "initial_step": 0.1},
            "meta": {
                "num_steps": 1500,
                "batch_size": 16,
                "microbatch": 8,
                "lr": 5e-4,
                "eval_every": 200,
                "checkpoint_every": 200,
            },
            "compression": {"bits": (3, 4, 5, 6), "num_latents": 2000},
        },
    )


def cifar10_small() -> ConfigDict:
    """CIFAR-10 pictures of `$VCINR_DATA`, sized for two CPU cores and half an hour."""
    return make_config(
        "coinpp",
        {"name": "cifar10_small"},
        {
            "field": {"num_layers": 5, "width": 64, "omega_0": 30.0, "latent_dim": 128},
            "adaptation": {"encode_steps": 10, "initial_step": 0.1},
            "meta": {
                "num_steps": 6000,
                "batch_size": 16,
                "microbatch": 8,
                "lr": 5e-4,
                "eval_every": 500,
                "checkpoint_every": 500,
            },
            "compression": {"bits": (3, 4, 5, 6), "offsets_per_picture": 1},
        },
    )


def cifar10() -> ConfigDict:
    """The paper's CIFAR-10 model with latent 384, one of its 128 … 1,024. For accelerators: days on one.

    10 layers of 512 (9 sine layers and the output), ω₀ = 50; three inner steps of 1e-2, ten in encoding; Adam at 3e-6, batch 64,
    5·10⁵ steps.
    """
    return make_config(
        "coinpp",
        {"name": "cifar10"},
        {
            "field": {"num_layers": 9, "width": 512, "latent_dim": 384, "projection_gain": 50.0 / 3**0.5},
            "adaptation": {"inner_lr": 1e-2, "encode_steps": 10},
            "meta": PAPER,
            "compression": {**TABLE, "offsets_per_picture": 1},
            "encode_batch": 64,
        },
    )


def kodak() -> ConfigDict:
    """The paper's Kodak model: as `cifar10`, but 32×32 patches of DIV2K, latent 128 (one of its 16 … 128) and Adam at 1e-6."""
    return make_config(
        "coinpp",
        {"name": "div2k", "test_name": "kodak"},
        {
            "field": {"num_layers": 9, "width": 512, "latent_dim": 128, "projection_gain": 50.0 / 3**0.5},
            "adaptation": {"inner_lr": 1e-2, "encode_steps": 10},
            "meta": {**PAPER, "lr": 1e-6},
            "compression": TABLE,
            "encode_batch": 64,
        },
    )


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """COIN++ on another kind of signal, sized for five minutes on two CPU cores; data and patches as for VC-INR."""
    config = demo().to_dict()
    field = {"num_layers": 4, "width": 64, **kind.field(name)}
    return make_config(
        "coinpp",
        kind.data,
        {**kind.values(name), **{k: config[k] for k in ("adaptation", "meta", "compression")}, "field": field},
    )


PAPER = {
    "num_steps": 500_000,
    "batch_size": 64,
    "microbatch": 16,
    "lr": 3e-6,
    "warmup_steps": 0,
    "final_lr_fraction": 1.0,
    "clip_norm": 0.0,
    "eval_every": 5000,
    "checkpoint_every": 5000,
    "log_every": 100,
}
"""The paper's outer loop: Adam at a constant rate."""

TABLE = {"bits": (3, 4, 5, 6, 7, 8), "one_range": True, "one_table": True, "num_latents": 50_000}
"""The paper's quantiser and histogram, one for all dimensions."""

VARIANTS = {"demo": demo, "cifar10_small": cifar10_small, "cifar10": cifar10, "kodak": kodak, **demos(of_kind)}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
