"""I2SB's ``options.pkl``, read without running what is in it: an unpickler that knows one class of settings and paths, nothing else."""
from __future__ import annotations

import io
import os
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

from ibmd_basicsr.utils.errors import CheckpointError, printable, value_or_type

LARGEST = 2**20
"""Settings are a few kilobytes; what is larger is something else."""

LARGEST_NUMBER = 2**31

KINDS: dict[str, type | tuple[type, ...]] = {
    'beta_max': (int, float), 'interval': int, 't0': (int, float), 'T': (int, float), 'ot_ode': bool, 'cond_x1': bool, 'add_x1_noise': bool,
    'corrupt': str}
"""The settings that matter to a bridge, and what they must be."""


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not allowed."""


class _SettingsUnpickler(pickle.Unpickler):
    """Knows stand-ins for ``argparse.Namespace`` and paths, made anew each time: a pickle may set attributes of what it can name."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.settings = type('Settings', (), {})

        def path(*parts: Any) -> str:
            if not all(isinstance(part, str) for part in parts):
                raise _Refused('holds a path whose parts are no strings, refused')
            return str(PurePosixPath(*parts))

        # Python 3.13 calls the module of paths pathlib._local
        self._known = {(module, name): path for module in ('pathlib', 'pathlib._local') for name in ('PosixPath', 'PurePosixPath')}
        self._known['argparse', 'Namespace'] = self.settings

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise _Refused(f'needs code to be run to be read (global {printable(f"{module}.{name}")}), refused')
        return self._known[module, name]


def read_i2sb_options(path: str | os.PathLike) -> dict[str, Any]:
    """Return those of the settings in an ``options.pkl`` that are in :data:`KINDS`.

    Raises:
        CheckpointError: no such file, something else than settings, or only readable by running code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such file of settings.')
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"{path}: is too large for I2SB's settings, not read.")
    unpickler = _SettingsUnpickler(io.BytesIO(path.read_bytes()))
    try:
        content = unpickler.load()
    except _Refused as error:
        raise CheckpointError(f'{path}: {error}.') from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise CheckpointError(f"{path}: cannot be read as I2SB's settings ({type(error).__name__}: {printable(error)}).") from error
    if not isinstance(content, unpickler.settings):
        raise CheckpointError(f"{path}: cannot be read as I2SB's settings (holds a {type(content).__name__}).")
    settings = {name: value for name, value in vars(content).items() if name in KINDS}
    for name, value in settings.items():
        fits = isinstance(value, KINDS[name]) and (not isinstance(value, bool) or KINDS[name] is bool)
        if not fits or (isinstance(value, int) and abs(value) > LARGEST_NUMBER):
            raise CheckpointError(f'{path}: {name} is {value_or_type(value)}.')
    return settings
