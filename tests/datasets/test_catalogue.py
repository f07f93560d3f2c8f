"""Sets are prepared once and read lazily, without TensorFlow; one that is missing names the commands."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.prepare import main
from vcinr.datasets.builders import DEMO_SPLITS, demo_folder
from vcinr.datasets.catalogue import DatasetMissing, dataset, load_split, prepare
from vcinr.datasets.table import DATASETS
from vcinr.modalities.files.picture import ImageError

STOCK = [name for name, row in DATASETS.items() if row.stock]


def pixels(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, of which the hash puts 3 and 12 on the validation side."""
    path = tmp_path / "my pictures"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3, 15):
        if i != 14:
            Image.fromarray(rng.integers(0, 256, (4 + i, 5, 3), dtype=np.uint8)).save(path / f"picture_{i}.png")
    return path


def test_demo_is_prepared_once_and_read_back_exactly(datasets_dir):
    first = prepare("demo")
    assert not first.already
    assert first.counts == {split: len(names) for split, names in DEMO_SPLITS.items()}
    assert prepare("demo").already
    assert prepare("demo").counts == first.counts
    assert str(datasets_dir) in first.folder
    for split, names in DEMO_SPLITS.items():
        pictures = load_split("demo", split)
        assert len(pictures) == len(names)
        for picture, name in zip(pictures, names, strict=True):
            np.testing.assert_array_equal(picture, pixels(demo_folder() / name))


def test_a_split_is_a_sequence(datasets_dir):
    prepare("demo")
    pictures = load_split("demo", "train")
    np.testing.assert_array_equal(pictures[-1], pictures[len(pictures) - 1])
    assert pictures[0].dtype == np.uint8
    assert pictures[0].flags.writeable
    assert [picture.shape for picture in pictures[1:3]] == [pictures[1].shape, pictures[2].shape]
    assert len(list(pictures)) == len(pictures)
    for index in (len(pictures), -len(pictures) - 1):
        with pytest.raises(IndexError):
            pictures[index]


def test_data_dir_comes_before_the_environment(datasets_dir, tmp_path):
    assert str(tmp_path / "other") in prepare("demo", str(tmp_path / "other")).folder
    assert len(load_split("demo", "test", str(tmp_path / "other"))) == 2
    with pytest.raises(DatasetMissing, match="not prepared"):
        load_split("demo", "test")


def test_no_tensorflow_and_a_light_import():
    program = """
import sys, tempfile
from vcinr.datasets import catalogue as datasets
assert "tensorflow_datasets" not in sys.modules, "imported before it is used"
with tempfile.TemporaryDirectory() as folder:
    datasets.prepare("demo", folder)
    assert len([picture.shape for picture in datasets.load_split("demo", "test", folder)]) == 2
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "absl" not in done.stderr
    assert "examples" not in done.stderr


def test_folder_splits_by_name_and_offers_all(datasets_dir, folder):
    counts = prepare("folder", path=str(folder)).counts
    assert counts == {"train": 9, "validation": 2, "all": 11}
    heights = {split: [len(picture) for picture in load_split("folder", split, path=str(folder))] for split in counts}
    assert heights["validation"] == [4 + 12, 4 + 3]
    assert heights["all"] == heights["train"] + heights["validation"]


def test_a_folder_that_changed_is_another_dataset(datasets_dir, folder):
    prepare("folder", path=str(folder))
    Image.new("RGB", (3, 3)).save(folder / "new.png")
    with pytest.raises(DatasetMissing, match="not prepared"):
        load_split("folder", "all", path=str(folder))
    assert prepare("folder", path=str(folder)).counts["all"] == 12


def test_folder_options_reach_the_reader(datasets_dir, folder):
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(folder / "clear.png")
    with pytest.raises(ImageError, match=r"clear\.png: has transparent pixels; pass --background"):
        prepare("folder", path=str(folder))
    assert not prepare("folder", path=str(folder), background="#010203").already
    pictures = load_split("folder", "all", path=str(folder), background="#010203")
    assert any((picture == [1, 2, 3]).all() for picture in pictures)
    with pytest.raises(DatasetMissing, match="--background '#010204'"):
        load_split("folder", "all", path=str(folder), background="#010204")


def test_a_split_without_pictures_says_what_there_is(datasets_dir, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "one" / "picture_1.png")
    assert prepare("folder", path=str(tmp_path / "one")).counts == {"train": 1, "validation": 0, "all": 1}
    assert len(load_split("folder", "all", path=str(tmp_path / "one"))) == 1
    with pytest.raises(DatasetMissing, match=r"no picture in its split 'validation': .*'train': 1"):
        load_split("folder", "validation", path=str(tmp_path / "one"))


def test_folders_that_are_not_there_or_hold_no_picture(datasets_dir, tmp_path):
    with pytest.raises(ValueError, match="needs path="):
        prepare("folder")
    for call in (lambda path: prepare("folder", path=path), lambda path: load_split("folder", "all", path=path)):
        with pytest.raises(DatasetMissing, match=r"there is no .*nowhere"):
            call(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetMissing, match=r"no picture in .*empty"):
        prepare("folder", path=str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["kodak", "photos", "cifar10_small", "faces"])
def test_a_missing_local_set_names_both_commands(name, datasets_dir, monkeypatch, tmp_path):
    split = next(iter(DATASETS[name].splits))
    for value, reason in ((None, "VCINR_DATA is not set"), (str(tmp_path), f"there is no {tmp_path}")):
        monkeypatch.delenv("VCINR_DATA", raising=False)
        if value:
            monkeypatch.setenv("VCINR_DATA", value)
        with pytest.raises(DatasetMissing) as caught:
            prepare(name)
        assert reason in str(caught.value)
        with pytest.raises(DatasetMissing) as unread:
            load_split(name, split)
        for error in (caught, unread):
            assert "export VCINR_DATA=" in str(error.value)
            assert f"python -m experiments.prepare {name}" in str(error.value)


@pytest.mark.parametrize("name", STOCK)
def test_a_missing_stock_set_names_both_commands(name, datasets_dir, monkeypatch, tmp_path):
    # As where the extra is not installed: what is None in sys.modules has no spec.
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    for call in (prepare, lambda name, data_dir: load_split(name, "train", data_dir)):
        with pytest.raises(DatasetMissing) as caught:
            call(name, str(tmp_path / "my sets"))
        assert "pip install 'vcinr[prepare]'" in str(caught.value)
        assert f"python -m experiments.prepare {name} --data_dir '{tmp_path}/my sets'" in str(caught.value)


def stock_files(name, config, feature, splits, folder):
    """Files such as preparing the stock set with TensorFlow leaves: its name, its configuration, its features."""
    import tensorflow_datasets as tfds

    from vcinr.datasets.builders import SignalBuilder

    class Stock(SignalBuilder, skip_registration=True):
        """Stands in for the catalogue's builder."""

        def _info(self):
            features = {
                feature: tfds.features.Image(shape=(None, None, 3)),
                "lr": tfds.features.Image(),
                "label": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, range(count)) for split, count in splits.items()}

        def _generate_examples(self, split, pictures):
            small = Image.new("RGB", (1, 1))
            for i in pictures:
                yield i, {feature: Image.new("RGB", (4, 4), (i, len(split), 0)), "lr": small, "label": "x"}

    Stock.name = name
    options = {"config": tfds.core.BuilderConfig(name=config, version="1.0.0")} if config else {}
    builder = Stock(data_dir=str(folder), **options)
    builder.download_and_prepare()
    return builder.data_path


@pytest.mark.parametrize("name", STOCK)
def test_prepared_stock_files_are_read_without_the_catalogue(name, datasets_dir):
    row = DATASETS[name]
    stock, _, config = row.stock.partition("/")
    theirs = {expression.split("[")[0] for expression in row.splits.values()}
    stock_files(stock, config, row.feature, dict.fromkeys(theirs, 40), datasets_dir)
    reds = {split: [int(picture[0, 0, 0]) for picture in load_split(name, split)] for split in row.splits}
    assert set(reds) == {"train", "validation", "test"}
    if row.splits["validation"].startswith("train["):
        assert reds["train"] == list(range(38))
        assert reds["validation"] == [38, 39]
    assert reds["test"] == list(range(40))
    # Prepared already, so that TensorFlow is not asked for.
    assert prepare(name).already
    assert prepare(name).counts == {split: len(found) for split, found in reds.items()}


def test_files_that_only_tensorflow_reads_are_named(datasets_dir):
    info = stock_files("cifar10", "", "image", {"train": 2, "test": 2}, datasets_dir) / "dataset_info.json"
    changed = json.loads(info.read_text())
    changed["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(changed))
    with pytest.raises(DatasetMissing, match=r"holds tfrecord files, .* move them away"):
        load_split("cifar10", "train")


def test_unknown_names_splits_and_options_name_the_nearest_and_the_valid():
    with pytest.raises(ValueError, match=r"unknown dataset: 'kodac'; did you mean 'kodak'\? \(valid: demo, cifar10_small"):
        dataset("kodac")
    with pytest.raises(ValueError, match=r"'valid'; did you mean 'validation'\? \(valid: train, validation, test"):
        load_split("demo", "valid")
    with pytest.raises(ValueError, match=r"'backgruond'; did you mean 'background'\?"):
        load_split("folder", "all", path=".", backgruond="white")
    with pytest.raises(ValueError, match="'demo' takes no option 'path'"):
        prepare("demo", path="x")


def test_the_command_says_what_it_prepared_and_where(datasets_dir, capsys):
    assert main(["demo"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"demo: train 4, validation 1, test 2 signals; now in {datasets_dir}/demo/1.0.0\n"
    assert "demo train" in printed.err
    assert main(["demo"]) == 0
    assert "was already" in capsys.readouterr().out


def test_the_command_ends_with_one_message(datasets_dir, tmp_path, capsys):
    assert main(["folder", "--path", str(tmp_path / "no")]) == 1
    assert main(["kodac"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert "did you mean 'kodak'" in printed.err
    assert f"folder --path {tmp_path}/no" in printed.err


@pytest.mark.parametrize(("name", "file", "train", "validation", "test"), [
    ("cifar10_small", "cifar10_small.npz", 4500, 500, 517),
    ("faces", "faces_celeba64.npz", 1800, 200, 200),
])  # fmt: skip
def test_real_arrays(name, file, train, validation, test, vcinr_data, datasets_dir):
    assert prepare(name).counts == {"train": train, "validation": validation, "test": test}
    with np.load(vcinr_data / file) as arrays:
        x_train, x_test = arrays["x_train"], arrays["x_test"]
    for split, rows in (("train", x_train[:train]), ("validation", x_train[train:]), ("test", x_test)):
        pictures = load_split(name, split)
        assert len(pictures) == len(rows)
        for i in (0, 1, 77, -1):
            np.testing.assert_array_equal(pictures[i], rows[i])


@pytest.mark.slow
def test_real_kodak_and_photos(vcinr_data, datasets_dir, monkeypatch):
    assert prepare("kodak").counts == {"test": 24}
    counts = prepare("photos").counts
    assert sum(counts.values()) == 171
    assert 10 <= counts["validation"] <= 25
    # Once prepared, the originals are not needed.
    monkeypatch.delenv("VCINR_DATA")
    pictures = load_split("kodak", "test")
    assert {picture.shape for picture in pictures} == {(512, 768, 3), (768, 512, 3)}
    np.testing.assert_array_equal(pictures[4], pixels(vcinr_data / "kodak" / "kodim05.png"))
