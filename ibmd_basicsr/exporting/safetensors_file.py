"""A student's weights as safetensors: no code in it, and its options as metadata."""
from __future__ import annotations

from pathlib import Path

import safetensors.torch

from ibmd_basicsr.exporting.student import Student
from ibmd_basicsr.utils.files import replace_file


def save_safetensors(student: Student, path: Path) -> None:
    """Write the weights, in the precision of the source, and :attr:`Student.about`.

    Raises:
        SaveError: the file cannot be written.
    """
    params = {name: value.contiguous() for name, value in student.params.items()}
    content = safetensors.torch.save(params, {'format': 'pt', **student.about})
    replace_file(path, lambda file: file.write(content))
