"""Datasets. Importing this package registers every ``*_dataset.py`` in BasicSR's ``DATASET_REGISTRY``."""
import importlib
from pathlib import Path

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)

for _file in sorted(Path(__file__).parent.glob('*_dataset.py')):
    importlib.import_module(f'{__name__}.{_file.stem}')
