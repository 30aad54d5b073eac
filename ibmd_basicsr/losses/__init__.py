"""Loss functions. Importing this package registers every ``*_loss.py`` in BasicSR's ``LOSS_REGISTRY``."""
import importlib
from pathlib import Path

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)

for _file in sorted(Path(__file__).parent.glob('*_loss.py')):
    importlib.import_module(f'{__name__}.{_file.stem}')
