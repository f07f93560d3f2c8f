"""The whole project in minutes: train, write files, decode them in another process, plot rate against quality.

    python -m experiments.demo [--out=out/demo]        (what `make demo` runs)

Trains `configs/vc_inr.py:demo` and `configs/klt.py:demo` on tiles of photographs that scikit-image carries, then measures both,
JPEG and JPEG 2000 on tiles of other photographs. Exits with status 1 where rate does not rise with λ, or where another process
decodes other pictures than this one. An interrupted demo resumes where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from configs import klt, vc_inr
from experiments import data
from experiments.train import batch_sizes, train
from vcinr.datasets.catalogue import DatasetMissing, prepare
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.classical import measure_jpeg, measure_jpeg2000
from vcinr.evaluation.measure import measure
from vcinr.model.model import Model
from vcinr.report.plots import Reconstruction, plot_rd, plot_reconstructions
from vcinr.report.records import points_json
from vcinr.report.tables import print_table
from vcinr.training.progress import ProgressBar
from vcinr.trees import write_atomically

SHOWN = 6
"""Tiles in the picture of reconstructions."""


def demo(out: Path) -> None:
    """Runs the demo in a folder. RuntimeError where one of its checks fails."""
    started = time.time()
    configs = {"klt": klt.get_config("demo"), "vc_inr": vc_inr.get_config("demo")}
    if (out / "rd.json").exists():
        for name in configs:
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "rd.json").unlink()
    prepare("demo")
    models = {name: train(config, out / name) for name, config in configs.items()}
    tiles = data.signals(configs["vc_inr"], "test")
    print(f"\n{len(tiles)} test tiles of 32×32, from pictures that no training has seen", flush=True)
    rows = []
    for name, model in models.items():
        with ProgressBar() as bar:
            rows += measure(model, tiles, "demo", "test", progress=bar.report)
        check_other_process(model, tiles, out / name)
    rows += measure_jpeg(tiles, "demo", "test", (20, 50, 80)) + measure_jpeg2000(tiles, "demo", "test", (24, 28, 32))
    write_atomically(out / "rd.json", f"{points_json(rows)}\n".encode())
    print_table(rows, "Rate and quality on the test tiles (bpp_file: all bytes; bpp_payload: without headers)")
    plot_rd(rows, out / "rd.png", title="32×32 tiles of coffee and chelsea")
    shown = data.evenly_spaced(tiles, SHOWN)
    draw(models["vc_inr"], shown, out / "reconstructions.png")
    print(f"{out}/rd.json, rd.png and reconstructions.png written; {time.time() - started:.0f} s in all")
    check_order([row for row in rows if row["codec"] == "vc_inr"])


def check_other_process(model: Model, tiles: list[np.ndarray], folder: Path) -> None:
    """Writes every point's files and decodes them in another process, which gets only the files and the model's folder."""
    files, pictures = folder / "files", folder / "decoded"
    shutil.rmtree(pictures, ignore_errors=True)
    files.mkdir(exist_ok=True)
    expected = {}
    for point in range(len(model.points)):
        encoded = model.encode_batch(tiles, point)
        for i, (content, decoded) in enumerate(zip(encoded, model.decode_batch(encoded), strict=True)):
            path = files / f"point{point}_tile{i:03d}.vcinr"
            path.write_bytes(content)
            expected[path] = decoded
    command = [sys.executable, "-m", "vcinr", "decode", *map(str, expected), "--out", str(pictures)]
    if subprocess.run([*command, "--model", str(folder / "model")], check=False).returncode != 0:
        raise RuntimeError(f"another process could not decode the files in {files}")
    for path, decoded in expected.items():
        other = np.asarray(Image.open(pictures / f"{path.stem}.png"))
        # The symbols are equal (a checksum verifies it); values halfway between two 8-bit steps may round either way.
        gap = np.abs(other.astype(int) - decoded)
        if gap.max() > 1 or gap.mean() > 1e-3:
            raise RuntimeError(f"{path} decodes to another picture in another process")
    print(f"{model.codec.name}: {len(expected)} files decoded in another process, to the same pictures", flush=True)


def check_order(rows: list[dict]) -> None:
    """RuntimeError where rate does not rise with λ."""
    rows = sorted(rows, key=lambda row: row["lambda"])
    for low, high in itertools.pairwise(rows):
        if not high["bpp_file"] > low["bpp_file"]:
            raise RuntimeError(
                f"rate does not rise with λ: {low['bpp_file']:.3f} bpp at {low['lambda']:g}, "
                f"{high['bpp_file']:.3f} at {high['lambda']:g}"
            )


def draw(model: Model, tiles: list[np.ndarray], path: Path) -> None:
    """Plots original, decoded and error of some tiles at the model's finest point."""
    point = len(model.points) - 1
    files = model.encode_batch(tiles, point)
    rows = [
        Reconstruction(tile, decoded, 8 * len(content) / (tile.shape[0] * tile.shape[1]), f"tile {i}")
        for i, (tile, content, decoded) in enumerate(zip(tiles, files, model.decode_batch(files), strict=True))
    ]
    plot_reconstructions(rows, path, f"VC-INR, point {point}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit status: 1 where one of its checks fails."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description="The whole project in minutes.")
    parser.add_argument("--out", type=Path, default="out/demo", help="folder of all results; a finished demo there is repeated")
    options = parser.parse_args(arguments)
    use_cpu_cores(batch_sizes(vc_inr.get_config("demo").to_dict()))
    try:
        demo(options.out)
    except (DatasetMissing, RuntimeError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
