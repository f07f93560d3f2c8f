"""Strümpler et al. 2022, meta-learned: `--config=configs/strumpler_meta.py:NAME`, NAME one of demo, kodak, celeba.

`experiments.train` learns the initial weights, `experiments.evaluate` fits each test picture from there.
"""

from ml_collections import ConfigDict

from configs.base import choose, make_config

PAPER = {
    "adaptation": {"num_steps": 3, "learn_start": False, "inner_lr": 1e-5, "chunk": 2**14},
    "num_steps": 25_000,
    "optimiser": {"lr": 5e-4, "schedule": "constant"},
    "l1": (2.5e-6, 2.5e-6),
    "bits": (7, 8),
    "coding": {"adaround": {"num_steps": 1000}, "retraining": {"num_steps": 300}},
}

PAPER_META = {
    "batch_size": 1,
    "lr": 5e-5,
    "warmup_steps": 0,
    "final_lr_fraction": 1.0,
    "clip_norm": 0.0,
    "average_decay": 0.0,
    "collapse_db": 0.0,
    "eval_every": 500,
    "checkpoint_every": 500,
}
"""Adam at a constant rate, nothing besides: of single pictures even a smoothed loss varies by the 3 dB that tell a collapse."""


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, one tiny network for all, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/strumpler_meta.py:demo --workdir=runs/strumpler_meta_demo`, then
    `python -m experiments.evaluate --workdir=runs/strumpler_meta_demo --out=runs/strumpler_meta_demo/rd.json`. Two minutes on two
    shared cores. 64 test tiles: 1.07, 1.33, 1.95, 2.57 bpp of payload at 32.4, 34.0, 36.0, 37.0 dB.
    """
    return make_config(
        "strumpler_meta",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": field(num_layers=3, width=10, num_frequencies=4),
            "adaptation": {"num_steps": 3, "learn_start": False},
            "meta": {"num_steps": 800, "batch_size": 16, "lr": 2e-3, "eval_every": 200, "checkpoint_every": 200},
            "num_steps": 300,
            "optimiser": {"lr": 2e-3, "schedule": "cosine", "final_fraction": 0.02},
            "l1": (1e-3, 3e-4, 1e-4, 1e-5),
            "bits": (4, 4, 5, 6),
            "coding": {"adaround": {"num_steps": 150, "lr": 5e-2, "batch": 256}, "retraining": {"num_steps": 150}},
        },
    )


def kodak() -> ConfigDict:
    """The paper's, width 64 of its 32 … 128: three inner steps that begin at 1e-5; outer Adam at a constant 5e-5, a picture a
    step, without warm-up, clipping or a parameter average; DIV2K.

    The paper goes through DIV2K's 800 pictures 30 times, at full size; here in crops of 256×256. The authors' three hidden layers
    come after a first one of the same width, so four layers have sines. For accelerators.
    """
    return make_config(
        "strumpler_meta",
        {"name": "div2k", "test_name": "kodak"},
        {
            **PAPER,
            "crop": (256, 256),
            "field": field(),
            "meta": {**PAPER_META, "num_steps": 24_000},
        },
    )


def celeba() -> ConfigDict:
    """The paper's for faces, width 48 of its 24 … 64, 12 frequencies, trained as `kodak`'s; here of 64×64 pictures.

    For accelerators.
    """
    return make_config(
        "strumpler_meta",
        {"name": "faces"},
        {
            **PAPER,
            "crop": (64, 64),
            "field": field(width=48, num_frequencies=12),
            "meta": {**PAPER_META, "num_steps": 160_000},
        },
    )


def field(**changes) -> dict:
    """The paper's network."""
    return {
        "num_layers": 4,
        "width": 64,
        "modulation": "weight_update",
        "encoding": "nerf",
        "num_frequencies": 16,
        "encoding_scale": 1.4,
        "omega_0": 30.0,
        **changes,
    }


VARIANTS = {"demo": demo, "kodak": kodak, "celeba": celeba}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
