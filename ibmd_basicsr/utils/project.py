"""Where an option file's relative paths start."""
from __future__ import annotations

from pathlib import Path


def project_root(option_file: Path | str) -> Path:
    """Return the folder that holds the ``options`` folder ``option_file`` lies in (at any depth), else the working directory."""
    for parent in Path(option_file).resolve().parents:
        if parent.name == 'options':
            return parent.parent
    return Path.cwd()
