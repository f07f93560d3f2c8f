"""Installation of vcinr: what it needs, and what for. Exact versions that were tested are in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "jax>=0.10,<0.12",  # arrays, gradients, compilation, devices
    "flax>=0.12,<0.13",  # Linen modules that declare parameters; dataclasses that are pytrees
    "optax>=0.2.5,<0.3",  # optimisers
    "chex>=0.1.90,<0.2",  # assertions on shapes and trees at public edges
    "orbax-checkpoint>=0.11,<0.13",  # checkpoints of a training run
    "numpy>=2.0,<3",  # symbols, tables and pictures on the host
    "scipy>=1.13,<2",  # BD-rate's monotone interpolation, special functions
    "constriction~=0.5.0",  # range coder; its integer arithmetic is part of the file format
    "safetensors>=0.5,<1",  # models on disk: arrays, never pickle
    "pillow>=11.3",  # pictures in and out, JPEG and JPEG 2000
    "tifffile>=2024.8",  # 16-bit TIFF; scikit-image needs it too
    "scikit-image>=0.25,<0.27",  # the demo's photographs (in its wheel), SSIM
    "tensorflow-datasets>=4.9.9,<4.10",  # data sets; read and prepared without TensorFlow
    "array_record>=0.7",  # the record format that tensorflow-datasets reads without TensorFlow
    "importlib_resources>=6",  # imported by tensorflow-datasets, not declared by it
    "ml-collections>=1.0,<2",  # configs of experiments
    "absl-py>=2.1,<3",  # flags and app of experiments
    "jaxtyping>=0.3,<0.4",  # shapes in annotations; checked under pytest only
    "rich>=13.7",  # progress bars and tables
    "matplotlib>=3.9,<4",  # rate-distortion plots
    "tensorboardX>=2.6,<3",  # event files, without TensorFlow
]

EXTRAS = {
    "sound": ["soundfile>=0.13,<1"],  # wav and FLAC, by blocks
    "video": ["av>=14"],  # films in and out; x264, x265, MP3 and Opus to be compared with
    "climate": [
        "xarray>=2025.1",  # fields with their coordinates and attributes
        "netCDF4>=1.7",  # NetCDF of every age
        "zarr>=3.0",  # Zarr, folders and zip files
    ],
    "scanner": ["nibabel>=5.3,<6"],  # NIfTI
    "all": ["vcinr[sound,video,climate,scanner]"],  # every kind of signal
    "compare": [
        "zfpy==1.0.1",  # zfp; the release after it breaks zarr's import of numcodecs
        "numcodecs>=0.16",  # Zstandard
    ],
    "cuda12": ["jax[cuda12]>=0.10,<0.12"],  # NVIDIA GPUs, CUDA 12
    "cuda13": ["jax[cuda13]>=0.10,<0.12"],  # NVIDIA GPUs, CUDA 13
    "prepare": ["tensorflow>=2.20"],  # preparing a stock data set (cifar10, div2k, ...), once
    "docs": [
        "mkdocs>=1.6,<2",  # the documentation site; 2 is another program
        "mkdocs-material>=9.6,<10",  # its theme: search and offline reading without any network
        "mkdocstrings[python]>=1.0,<2",  # the API reference, from docstrings, without importing the code
    ],
    "test": [
        "pytest>=8.3",
        "pytest-xdist>=3.6",  # one process a core
        "hypothesis>=6.120",  # properties and hostile bytes
        "beartype>=0.20",  # checks the annotations at run time
        "ruff>=0.12",  # lint
        "import-linter>=2.3",  # the map of the rooms
        "build>=1.2",  # the wheel that a test installs
        "setuptools>=77",  # builds that wheel
        "PyYAML>=6",  # reads CITATION.cff
        "vcinr[all,compare]",
    ],
}

setup(
    name="vcinr",
    version="0.1.0",
    description="Neural compression of pictures and other signals with implicit neural representations, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    packages=find_packages(include=["vcinr", "vcinr.*"]),
    package_data={"vcinr": ["py.typed", "evaluation/published/*.json", "models/**/*", "posterior/*.npy"]},
    entry_points={"console_scripts": ["vcinr = vcinr.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    keywords="neural compression, implicit neural representations, INR, JAX, meta-learning",
)
