"""MSCN, unstructured (Schwarz and Teh 2022): `--config=configs/mscn_unstructured.py:NAME`, NAME one of demo, celeba."""

from ml_collections import ConfigDict

from configs.base import choose, make_config


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/mscn_unstructured.py:demo --workdir=runs/mscn_unstructured_demo`, then
    `python -m experiments.evaluate --workdir=runs/mscn_unstructured_demo --out=runs/mscn_unstructured_demo/rd.json`. Results:
    docs/results.md.
    """
    training = {"batch_size": 8, "lr": 1e-3, "warmup_steps": 20, "average_decay": 0.99, "checkpoint_every": 200}
    return make_config(
        "mscn_unstructured",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {"modulation": "weight_update", "num_layers": 3, "width": 32},
            "adaptation": {"num_steps": 2, "initial_step": 1.0},
            "gates": {"target": 0.06},
            "sparsify": {**training, "num_steps": 500, "final_lr_fraction": 0.3, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 400, "eval_every": 200},
            "uniform": {"bits": (3, 4, 5, 6), "num_latents": 2000},
        },
    )


def celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA` (the paper: 178×178): 4 × 256 (and the output), two
    steps of Meta-SGD, batch 3. How long it trains, and how gates start, the paper's main text does not say. For accelerators."""
    training = {"batch_size": 3, "lr": 1e-5, "warmup_steps": 1000, "eval_every": 5000, "checkpoint_every": 5000, "log_every": 100}
    return make_config(
        "mscn_unstructured",
        {"name": "faces"},
        {
            "patch": (64, 64),
            "field": {"modulation": "weight_update", "num_layers": 4, "width": 256},
            "adaptation": {"num_steps": 2, "step_rate": 100.0},
            "gates": {"target": 0.02, "gate_lr": 1e-3, "lambda_lr": 1e-3},
            "sparsify": {**training, "num_steps": 200_000, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 300_000},
            "uniform": {"bits": (5, 6, 7, 8), "one_table": True, "offsets_per_picture": 1},
        },
    )


VARIANTS = {"demo": demo, "celeba": celeba}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
