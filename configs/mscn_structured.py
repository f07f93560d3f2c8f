"""MSCN, structured (Schwarz and Teh 2022): `--config=configs/mscn_structured.py:NAME`, NAME one of demo, celeba, cifar10,
kodak."""

from ml_collections import ConfigDict

from configs.base import choose, make_config


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/mscn_structured.py:demo --workdir=runs/mscn_structured_demo`, then
    `python -m experiments.evaluate --workdir=runs/mscn_structured_demo --out=runs/mscn_structured_demo/rd.json`. Results:
    docs/results.md.
    """
    training = {"batch_size": 8, "lr": 3e-4, "warmup_steps": 20, "average_decay": 0.99, "checkpoint_every": 200}
    return make_config(
        "mscn_structured",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {"modulation": "shifts", "num_layers": 4, "width": 48},
            "adaptation": {"num_steps": 3, "initial_step": 0.1, "subset": 512, "step_rate": 20.0},
            "gates": {"apply": "modulation", "target": 1 / 3},
            "sparsify": {**training, "num_steps": 500, "final_lr_fraction": 0.3, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 400, "eval_every": 200},
            "uniform": {"bits": (3, 4, 5, 6), "num_latents": 2000},
        },
    )


def _paper(data: dict, entries: int, patch: tuple[int, ...]) -> ConfigDict:
    """15 × 512 (14 sine layers and the output), three steps of Meta-SGD; ``entries`` of the 7,168 shifts are coded."""
    training = {
        "batch_size": 16,
        "lr": 3e-6,
        "warmup_steps": 2000,
        "eval_every": 5000,
        "checkpoint_every": 5000,
        "log_every": 100,
    }
    return make_config(
        "mscn_structured",
        data,
        {
            "patch": patch,
            "field": {"modulation": "shifts", "num_layers": 14, "width": 512},
            "adaptation": {"num_steps": 3, "step_rate": 100.0},
            "gates": {"apply": "modulation", "target": entries / 7168, "gate_lr": 1e-3, "lambda_lr": 1e-3},
            "sparsify": {**training, "num_steps": 200_000, "microbatch": 4, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 300_000, "microbatch": 4},
            "uniform": {"bits": (4, 5, 6, 7), "offsets_per_picture": 1},
        },
    )


def celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA`: 256 shifts of its 64 … 1,024. What its main text does not say
    (steps, rates) is taken from Functa's paper. For accelerators: days on one."""
    return _paper({"name": "faces"}, 256, (64, 64))


def cifar10() -> ConfigDict:
    """The paper's sizes on CIFAR-10, 256 shifts. For accelerators: days on one."""
    return _paper({"name": "cifar10"}, 256, (32, 32))


def kodak() -> ConfigDict:
    """The paper's sizes: patches of 32×32 of DIV2K, evaluated on Kodak, whole; 128 shifts. For accelerators: days on one."""
    return _paper({"name": "div2k", "test_name": "kodak"}, 128, (32, 32))


VARIANTS = {"demo": demo, "celeba": celeba, "cifar10": cifar10, "kodak": kodak}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
