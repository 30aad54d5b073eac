"""Metrics. Importing this package registers every ``*_metric.py`` in BasicSR's ``METRIC_REGISTRY``."""
from __future__ import annotations

import importlib
from pathlib import Path

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)

for _file in sorted(Path(__file__).parent.glob('*_metric.py')):
    importlib.import_module(f'{__name__}.{_file.stem}')
