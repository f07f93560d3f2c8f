"""Trained fields taken apart: what their gates learned, and what their bottleneck buys on the latents that it is given.

    python -m experiments.dissect --part=gates --model RUN/model … tiny photo
    python -m experiments.dissect --part=quantiser --model RUN/model …
    python -m experiments.dissect --part=distortion --model RUN/model …
    python -m experiments.dissect --part=faces --workdir=DIR

A model is a name, or a folder of `experiments.train`. The parts ask: what training moved, and what is lost without the gates;
whether the learned quantiser beats uniform ones on identical latents; whether a bottleneck had better be trained on the error of
φ than on that of the signal; what faces with similar gates have in common. No patch that is measured was trained on. Prints a
table, and writes it to docs/results/studies/dissect_PART.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from experiments.command_line import run_study
from experiments.dissect import coding, distortion, faces, gates
from experiments.dissect.models import label
from vcinr.devices import use_cpu_cores
from vcinr.model.places import ModelError
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table

PARTS = {"gates": gates.PART, "quantiser": coding.PART, "distortion": distortion.PART, "faces": faces.PART}


def study(options: argparse.Namespace) -> str:
    """Runs a part; writes the study and returns its table."""
    part, source, started = PARTS[options.part], provenance(), time.process_time()
    record = options.record or f"docs/results/studies/dissect_{options.part}.json"
    rows, figures = part.rows(options, record)
    given = {name: getattr(options, name) for name in part.options}
    models = f" --model {' '.join(map(label, options.model))}" if options.model else " --workdir=DIR"
    words = " ".join(f"--{name}={value}" for name, value in given.items())
    found = save_study(
        record,
        title=part.title,
        about=" ".join(part.about.format(**vars(options)).split()),
        columns=part.columns,
        rows=rows,
        command=f"python -m experiments.dissect --part={options.part}{models} {words}",
        duration_s=time.process_time() - started,
        notes=options.notes,
        figures=figures,
        source=source,
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a part and prints its table; the exit status is 1 where a model or the data are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dissect", description="Trained fields taken apart.")
    parser.add_argument("--part", required=True, choices=list(PARTS), help="what is asked")
    parser.add_argument("--model", nargs="+", default=[], metavar="MODEL", help="names, or folders that hold a model")
    parser.add_argument("--workdir", default="", help="folder of the training of faces, which resumes there")
    parser.add_argument("--patches", type=int, default=128, help="validation patches, or test faces (%(default)s)")
    parser.add_argument("--pairs", type=int, default=32, help="gates: pairs of Jacobians (%(default)s)")
    parser.add_argument("--latents", type=int, default=2000, help="training latents of quantisers and bottlenecks (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="distortion: training steps of a point (%(default)s)")
    parser.add_argument("--training", type=int, default=4000, help="faces: training steps of the field (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is trained (%(default)s)")
    parser.add_argument("--record", default="", help="the JSON file to write (docs/results/studies/dissect_PART.json)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    if (options.part == "faces") == bool(options.model) or (options.part == "faces") != bool(options.workdir):
        parser.error("faces need --workdir and no --model, all other parts --model and no --workdir")
    use_cpu_cores()
    return run_study(study, options, ModelError)


if __name__ == "__main__":
    sys.exit(main())
