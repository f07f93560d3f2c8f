"""Functa (Dupont et al. 2022a): `--config=configs/functa.py:NAME`, NAME one of demo, cifar10_small, celeba."""

from ml_collections import ConfigDict

from configs.base import choose, make_config


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/functa.py:demo --workdir=runs/functa_demo`, then
    `python -m experiments.evaluate --workdir=runs/functa_demo --out=runs/functa_demo/rd.json`. Results: docs/results.md.
    """
    return make_config(
        "functa",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {"num_layers": 4, "width": 64, "latent_dim": 64},
            "adaptation": {"subset": 256},
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
        "functa",
        {"name": "cifar10_small"},
        {
            "field": {"num_layers": 5, "width": 64, "latent_dim": 128},
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


def celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA`. For accelerators: days on one.

    15 × 512 (14 sine layers and the output), latent 256 of its 64 … 1,024; three steps of Meta-SGD; Adam at 3e-6, batch 16, 5·10⁵
    steps.
    """
    return make_config(
        "functa",
        {"name": "faces"},
        {
            "patch": (64, 64),
            "field": {"num_layers": 14, "width": 512, "latent_dim": 256},
            "meta": {
                "num_steps": 500_000,
                "batch_size": 16,
                "microbatch": 4,
                "lr": 3e-6,
                "warmup_steps": 0,
                "final_lr_fraction": 1.0,
                "clip_norm": 0.0,
                "eval_every": 5000,
                "checkpoint_every": 5000,
                "log_every": 100,
            },
            "compression": {"bits": (3, 4, 5, 6, 7, 8), "offsets_per_picture": 1},
        },
    )


VARIANTS = {"demo": demo, "cifar10_small": cifar10_small, "celeba": celeba}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
