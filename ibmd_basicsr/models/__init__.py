"""Training and test models. Importing this package registers every ``*_model.py`` in BasicSR's ``MODEL_REGISTRY``."""
import importlib
from pathlib import Path

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)

for _file in sorted(Path(__file__).parent.glob('*_model.py')):
    importlib.import_module(f'{__name__}.{_file.stem}')

from ibmd_basicsr.models.builders import build_restorer  # noqa: E402

__all__ = ['build_restorer']
