"""Files that an earlier version wrote with the bundled models still decode, to equal symbols and to equal pictures.

`golden/` holds crops of two photographs of scikit-image, encoded, and what they decoded to then: MODEL_POINT.vcinr and .png. A
change that breaks them orphans everybody's files: it belongs into another codec or model, and the golden files stay.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vcinr

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.vcinr"))


def test_there_are_files_of_each_bundled_model_at_coarse_middle_and_fine_points():
    assert [path.stem for path in GOLDEN] == [f"{name}_{point}" for name in ("photo", "tiny") for point in (0, 4, 8)]
    assert all(path.stat().st_size < 1000 for path in GOLDEN)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_version_decodes_as_it_did(path):
    data, (name, point) = path.read_bytes(), path.stem.split("_")
    model = vcinr.load(name)
    # Reading compares the CRC of the symbols; writing them again finds any change of tables, of coding order or of the head.
    found, codes, grids = model.read_codes(data)
    assert found == int(point)
    assert model.write_codes(found, codes, grids) == data
    decoded, expected = model.decode(data), np.asarray(Image.open(path.with_suffix(".png")))
    # Values are floats until they are rounded: another machine may differ by one level here and there.
    difference = np.abs(decoded.astype(int) - expected)
    assert decoded.shape == expected.shape
    assert difference.max() <= 1
    assert np.mean(difference != 0) < 0.001
