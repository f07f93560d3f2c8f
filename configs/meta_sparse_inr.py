"""MetaSparseINR (Lee et al. 2021): `--config=configs/meta_sparse_inr.py:NAME`, NAME one of demo, celeba."""

from ml_collections import ConfigDict

from configs.base import choose, make_config


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/meta_sparse_inr.py:demo --workdir=runs/meta_sparse_inr_demo`, then
    `python -m experiments.evaluate --workdir=runs/meta_sparse_inr_demo --out=runs/meta_sparse_inr_demo/rd.json`. Results:
    docs/results.md.
    """
    training = {
        "batch_size": 8,
        "lr": 1e-3,
        "warmup_steps": 20,
        "average_decay": 0.99,
        "collapse_db": 0.0,
        "checkpoint_every": 100,
    }
    return make_config(
        "meta_sparse_inr",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {"modulation": "weight_update", "num_layers": 3, "width": 32},
            "adaptation": {"num_steps": 2, "step_sizes": "fixed", "learn_start": False, "initial_step": 0.3},
            "target": 0.164,
            "rounds": 3,
            "meta": {**training, "num_steps": 300, "final_lr_fraction": 0.3},
            "retrain": {**training, "num_steps": 200, "final_lr_fraction": 0.1},
            "compression": {"bits": (2, 3, 4, 5), "num_latents": 2000},
        },
    )


def celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA` (the paper: 178×178). For accelerators.

    4 × 256 (and the output), ω₀ = 200; two inner steps of 1e-2; Adam at 1e-5, batch 3; 20 rounds that prune a fifth of what is
    left of the kernels each, down to 1.15 % of them, with 30,000 steps of retraining per round.
    """
    plain = {"warmup_steps": 0, "final_lr_fraction": 1.0, "clip_norm": 0.0}
    training = {
        **plain,
        "batch_size": 3,
        "lr": 1e-5,
        "eval_every": 5000,
        "checkpoint_every": 5000,
        "collapse_db": 0.0,
        "log_every": 100,
    }
    return make_config(
        "meta_sparse_inr",
        {"name": "faces"},
        {
            "patch": (64, 64),
            "field": {"modulation": "weight_update", "num_layers": 4, "width": 256, "omega_0": 200.0},
            "adaptation": {"num_steps": 2, "step_sizes": "fixed", "learn_start": False, "inner_lr": 1e-2},
            "target": 0.8**20,
            "rounds": 20,
            "meta": {**training, "num_steps": 150_000},
            "retrain": {**training, "num_steps": 30_000},
            "compression": {"bits": (5, 6, 7, 8), "one_table": True, "offsets_per_picture": 1},
        },
    )


VARIANTS = {"demo": demo, "celeba": celeba}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
