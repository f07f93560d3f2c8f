"""MSCN (Schwarz and Teh 2022): `--config=configs/mscn.py:NAME`.

NAME is one of unstructured_demo, unstructured_celeba, structured_demo, structured_celeba, structured_cifar10, structured_kodak,
per_signal_demo.
"""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.kinds import Kind, demos

DEMO = {"name": "demo", "test_tiles": 32, "test_limit": 64}
DEMO_TRAINING = {"batch_size": 8, "warmup_steps": 20, "average_decay": 0.99, "checkpoint_every": 200}


def unstructured_demo() -> ConfigDict:
    """Sparse updates of all weights, on the tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/mscn.py:unstructured_demo --workdir=runs/mscn_unstructured_demo`, then
    `python -m experiments.evaluate --workdir=runs/mscn_unstructured_demo --out=runs/mscn_unstructured_demo/rd.json`. Results:
    docs/results.md.
    """
    training = {**DEMO_TRAINING, "lr": 1e-3}
    return make_config(
        "mscn_unstructured",
        DEMO,
        {
            "field": {"modulation": "weight_update", "num_layers": 3, "width": 32},
            "adaptation": {"num_steps": 2, "initial_step": 1.0},
            "gates": {"target": 0.06},
            "sparsify": {**training, "num_steps": 500, "final_lr_fraction": 0.3, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 400, "eval_every": 200},
            "compression": {"bits": (3, 4, 5, 6), "num_latents": 2000},
        },
    )


def unstructured_celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA` (the paper: 178×178). For accelerators.

    4 × 256 (and the output), two steps of Meta-SGD, batch 3, ω₀ = 200 as MetaSparseINR, whose setup the paper follows (section
    5.1). The paper's main text states neither the number of training steps nor the initial gates.
    """
    training = {"batch_size": 3, "lr": 1e-5, "warmup_steps": 1000, "eval_every": 5000, "checkpoint_every": 5000, "log_every": 100}
    return make_config(
        "mscn_unstructured",
        {"name": "faces"},
        {
            "patch": (64, 64),
            "field": {"modulation": "weight_update", "num_layers": 4, "width": 256, "omega_0": 200.0},
            "adaptation": {"num_steps": 2, "step_rate": 100.0},
            "gates": {"target": 0.02, "gate_lr": 1e-3, "lambda_lr": 1e-3},
            "sparsify": {**training, "num_steps": 200_000, "collapse_db": 0.0},
            "meta": {**training, "num_steps": 300_000},
            "compression": {"bits": (5, 6, 7, 8), "one_table": True, "offsets_per_picture": 1},
        },
    )


def structured_demo() -> ConfigDict:
    """Sparse shifts, on the tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/mscn.py:structured_demo --workdir=runs/mscn_structured_demo`, then
    `python -m experiments.evaluate --workdir=runs/mscn_structured_demo --out=runs/mscn_structured_demo/rd.json`. Results:
    docs/results.md.
    """
    return make_config("mscn_structured", DEMO, _shifts_of_tiles())


def per_signal_demo() -> ConfigDict:
    """As `structured_demo`, but the inner loop adapts the gates too, and every tile's file holds its own sparsity pattern.

    Commands: `python -m experiments.train --config=configs/mscn.py:per_signal_demo --workdir=runs/mscn_per_signal_demo`, then
    `python -m experiments.evaluate --workdir=runs/mscn_per_signal_demo --out=runs/mscn_per_signal_demo/rd.json`.
    """
    return make_config("mscn_per_signal", DEMO, _shifts_of_tiles())


def structured_celeba() -> ConfigDict:
    """The paper's sizes on the 64×64 faces of `$VCINR_DATA`: 256 shifts of its 64 … 1,024. For accelerators: days on one.

    The paper's main text states neither steps nor learning rates; these are from the Functa paper.
    """
    return _paper({"name": "faces"}, 256, (64, 64))


def structured_cifar10() -> ConfigDict:
    """The paper's sizes on CIFAR-10, 256 shifts. For accelerators: days on one."""
    return _paper({"name": "cifar10"}, 256, (32, 32))


def structured_kodak() -> ConfigDict:
    """The paper's sizes, 128 shifts: trained on 32×32 patches of DIV2K, evaluated on Kodak. For accelerators: days on one."""
    return _paper({"name": "div2k", "test_name": "kodak"}, 128, (32, 32))


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """Sparse shifts on another kind of signal, sized for five minutes on two CPU cores; patches as for VC-INR."""
    values = _shifts_of_tiles()
    field = {**values["field"], **kind.field(name), "latent_dim": 1}
    return make_config("mscn_structured", kind.data, {**values, **kind.values(name), "field": field})


def _shifts_of_tiles() -> dict:
    training = {**DEMO_TRAINING, "lr": 3e-4}
    return {
        "field": {"modulation": "shifts", "num_layers": 4, "width": 48},
        "adaptation": {"num_steps": 3, "initial_step": 0.1, "subset": 512, "step_rate": 20.0},
        "gates": {"apply": "modulation", "target": 1 / 3},
        "sparsify": {**training, "num_steps": 500, "final_lr_fraction": 0.3, "collapse_db": 0.0},
        "meta": {**training, "num_steps": 400, "eval_every": 200},
        "compression": {"bits": (3, 4, 5, 6), "num_latents": 2000},
    }


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
            "compression": {"bits": (4, 5, 6, 7), "offsets_per_picture": 1},
        },
    )


VARIANTS = {
    "unstructured_demo": unstructured_demo,
    "unstructured_celeba": unstructured_celeba,
    "structured_demo": structured_demo,
    "structured_celeba": structured_celeba,
    "structured_cifar10": structured_cifar10,
    "structured_kodak": structured_kodak,
    "per_signal_demo": per_signal_demo,
    **demos(of_kind, prefix="structured_demo"),
}


def get_config(name: str = "unstructured_demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
