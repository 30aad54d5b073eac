"""A malformed input, the command that meets it, and what that command may do."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tiny import NETWORK, make_photos, make_teacher, options
from tiny_zoo import JPEG, STUDENT, add_network, picture

EXECUTED = 'executed'
"""What code in a file of the corpus would make, in the folder that the command is called in."""

RESTORE = ('--task', 'jpeg', '--zoo', 'zoo', '--device', 'cpu')
"""Options of the restore command."""


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        name: ``family/what``, unique.
        module: the command, ``ibmd_basicsr.<module>``.
        make: writes the input into a copy of the good folder (:func:`make_good`) and returns the command line, which is called there.
        names: what the line must name, usually the file.
        says: pattern of the reason in that line; empty for what is odd but can be used: then there must be no line.
        code: exit code.
        results: the files that the command leaves in ``out``.
    """

    name: str
    module: str
    make: Callable[[Path], list]
    names: str
    says: str
    code: int = 2
    results: tuple[str, ...] = ()


def make_good(folder: Path) -> None:
    """Write what cases need beside their input: pictures, weights of the tiny networks, a zoo of one."""
    make_photos(folder / 'photos')
    make_teacher(folder, noise_channels=STUDENT['noise_channels'])
    (folder / 'teacher.pth').rename(folder / 'student.pth')
    make_teacher(folder)
    (folder / 'zoo').mkdir()
    add_network(folder / 'zoo', 'jpeg10_tiny_student', degradation=JPEG | {'quality': 10})
    Image.fromarray(picture()).save(folder / 'good.png')


def test_options(folder: Path, pairs: bool = False) -> dict:
    """Return options of the test command: the pictures degraded, or each as its own pair by BasicSR's data set."""
    opt = options(folder)
    data = opt['datasets']['val']
    if pairs:
        photos = str(folder / 'photos')
        opt['scale'] = 1
        data = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': photos, 'dataroot_lq': photos, 'io_backend': {'type': 'disk'}}
    return opt | {'datasets': {'test': data}}


def compare_options(folder: Path) -> dict:
    """Return options of a comparison: the corrupted pictures, and a bridge."""
    bridge = {'name': 'teacher', 'kind': 'bridge', 'network': dict(NETWORK), 'bridge': {'type': 'I2SB'},
              'sampler': {'type': 'ancestral', 'steps': 2}, 'weights': str(folder / 'teacher.pth')}
    return {'name': 'tiny', 'scale': 1, 'output': str(folder / 'out'), 'restorers': [{'name': 'input', 'kind': 'input'}, bridge],
            'dataset': {'type': 'DegradedImageDataset', 'dataroot_gt': str(folder / 'photos'),
                        'degradation': {'type': 'jpeg', 'quality': 90, 'codec': 'libjpeg'}}}
