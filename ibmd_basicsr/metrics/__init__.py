"""Metrics. Importing this package registers every ``*_metric.py`` in BasicSR's ``METRIC_REGISTRY``."""
from __future__ import annotations

import importlib
from pathlib import Path

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)

for _file in sorted(Path(__file__).parent.glob('*_metric.py')):
    importlib.import_module(f'{__name__}.{_file.stem}')

BETTER = {
    'psnr': 'higher', 'ssim': 'higher', 'lpips': 'lower', 'niqe': 'lower', 'texture_distance': 'lower', 'dists': 'lower', 'psnrb': 'higher',
    'classifier_accuracy': 'higher', 'FrechetDistance': 'lower', 'KernelDistance': 'lower', 'Diversity': 'higher',
}
"""Which direction is better, by the name that follows ``calculate_`` (BasicSR's own metrics included) or the class of another metric."""


def better_of(kind: str) -> str | None:
    """Return the better direction of a metric by the ``type`` of its option block: ``higher``, ``lower``, or None where it is not known."""
    return BETTER.get(str(kind).removeprefix('calculate_').removesuffix('_pt'))
