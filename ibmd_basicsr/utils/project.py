"""Option files: whether they are there, and where their relative paths start; the repository."""
from __future__ import annotations

from pathlib import Path

from ibmd_basicsr.utils.errors import OptionError

REPOSITORY = Path(__file__).resolve().parents[2]
"""Holds ``weights/``, ``options/`` and ``datasets/`` where the package is used out of a clone; an installed package lacks them."""


def project_root(option_file: Path | str) -> Path:
    """Return the folder that holds the ``options`` folder ``option_file`` lies in (at any depth), else the working directory."""
    for parent in Path(option_file).resolve().parents:
        if parent.name == 'options':
            return parent.parent
    return Path.cwd()


def find_option_file(given: Path | str) -> Path:
    """Return the path of an option file.

    Raises:
        OptionError: there is no file; pipes and devices, which may never end, are none.
    """
    path = Path(given)
    if not path.is_file():
        what = 'is a folder, not an option file' if path.is_dir() else 'is not a regular file' if path.exists() else 'no such option file'
        raise OptionError(f'{given}: {what}.')
    return path
