"""Plots: what is drawn, that files are pictures and come out equal, and that nothing global is touched."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.fakes import pictures, points
from vcinr.evaluation.published import load
from vcinr.report import plots


def test_rate_distortion_plot_is_a_picture_and_reproducible(tmp_path):
    rows = points("klt") + points("jpeg", overhead=5.0) + points("something_new")
    curves = [load(name, "cifar10") for name in ("coinpp", "recombiner")]
    for name in ("a.png", "b.png"):
        plots.plot_rd(rows, tmp_path / name, curves, "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert min(picture.shape[:2]) > 300
    for colour in plots.COLOURS[:3]:
        # Each codec's colour is really on the page.
        rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - rgb).max(axis=-1) < 8).sum() > 100


def test_plot_refuses_nothing_and_foreign_units(tmp_path):
    with pytest.raises(ValueError, match="no measured points"):
        plots.plot_rd([], tmp_path / "x.png")
    with pytest.raises(ValueError, match="kbps"):
        plots.plot_rd(points(), tmp_path / "x.png", [load("coinpp", "librispeech")])
    with pytest.raises(ValueError, match="no reconstructions"):
        plots.plot_reconstructions([], tmp_path / "x.png")


def test_what_is_beside_ours_is_drawn_instead_of_its_means(tmp_path):
    rows = points("contextual_inr") + points("jpeg2000", curve=((0.5, 20.0), (1.0, 22.0), (2.0, 24.0), (4.0, 26.0)))
    line = {"jpeg2000": [(0.5, 23.0), (1.0, 26.0), (2.0, 30.0)]}
    drawn = []
    for name, beside in (("means.png", None), ("beside.png", line)):
        plots.plot_rd(rows, tmp_path / name, beside=beside)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] != drawn[1]
    # Its own means no longer matter at all.
    plots.plot_rd(points("contextual_inr") + points("jpeg2000"), tmp_path / "other.png", beside=line)
    assert (tmp_path / "other.png").read_bytes() == drawn[1]


def test_payload_is_drawn_where_it_differs_visibly(tmp_path):
    near, far = points("contextual_inr", overhead=0.001), points("contextual_inr", overhead=0.1)
    for name, rows in (("near", near), ("far", far)):
        plots.plot_rd(rows, tmp_path / f"{name}.png")
        plots.plot_rd([{**row, "bpp_payload": None} for row in rows], tmp_path / f"{name}_files.png")
    assert (tmp_path / "near.png").read_bytes() == (tmp_path / "near_files.png").read_bytes()
    assert (tmp_path / "far.png").read_bytes() != (tmp_path / "far_files.png").read_bytes()


def test_the_summary_is_of_a_readmes_width_and_cut_to_our_rates(tmp_path):
    lines = {"contextual_inr, measured": [(0.1, 26.0), (1.0, 34.0)], "BPG, published": [(0.2, 29.0), (0.9, 36.0)]}
    plots.plot_summary(lines, tmp_path / "a.png", "24 pictures")
    plots.plot_summary({**lines, "BPG, published": [(0.01, 10.0), *lines["BPG, published"]]}, tmp_path / "b.png", "24 pictures")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert 1000 < Image.open(tmp_path / "a.png").width < 1400
    with pytest.raises(ValueError, match="no lines"):
        plots.plot_summary({}, tmp_path / "x.png")


def test_reconstructions_show_no_error_as_grey(tmp_path):
    # White pictures without error: nothing but the error column is grey.
    white = np.full((24, 24, 3), 255, np.uint8)
    plots.plot_reconstructions([plots.Reconstruction(white, white, 0.1)] * 2, tmp_path / "same.png")
    plots.plot_reconstructions([plots.Reconstruction(white, white - 100, 0.1)] * 2, tmp_path / "dark.png")
    same, dark = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("same.png", "dark.png"))
    grey, black = np.abs(same - 127).max(axis=-1) < 3, dark.max(axis=-1) < 3
    third = same.shape[1] // 3
    assert grey[:, 2 * third + 20 :].mean() > 0.5
    assert grey[:, : 2 * third - 20].mean() < 0.02
    assert black[:, 2 * third + 20 :].mean() > 0.5
    assert black[:, : 2 * third - 20].mean() < 0.02


def test_pictures_of_different_shapes_stand_in_two_blocks(tmp_path):
    images = [*pictures(4), *pictures(2, (30, 10))]
    rows = [plots.Reconstruction(image, image, 1.0, f"picture {k}") for k, image in enumerate(images)]
    plots.plot_reconstructions(rows, tmp_path / "rows.png", "title", amplification=8)
    assert Image.open(tmp_path / "rows.png").width > 1000


def test_names_for_readers():
    assert plots.display_name("coinpp") == "COIN++"
    assert plots.display_name("klt (first)") == "KLT (linear floor) (first)"
    assert plots.display_name("unheard_of") == "unheard_of"


def test_pyplot_with_its_global_state_is_not_imported():
    code = "import sys, vcinr.report.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
