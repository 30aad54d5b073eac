"""Switches of a training: how its arithmetic is done on the machine at hand, not what is computed (docs/speed.md)."""
from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.precision import autocast_dtype

COMPILERS = {True: 'inductor', 'aot_eager': 'aot_eager', 'eager': 'eager'}
"""``train.compile`` -> torch's backend. The last two compile nothing: they tell which stage of torch.compile is to blame."""

SWITCHES = {'amp': (False, 'bf16', 'auto'), 'compile': (False, *COMPILERS), 'tf32': (False, True), 'channels_last': (False, True, 'auto')}
"""Key of ``train`` -> values; none given is torch's own choice for ``tf32``, false for the others."""


class Switches:
    """``train.amp``, ``channels_last``, ``compile`` and ``tf32`` on a device. Checkpoints are the same whichever way they stand.

    Args:
        train: the block ``train``, checked; empty for a test.
        device: where the networks live.

    Attributes:
        autocast: dtype of mixed precision, None for float32.
        memory_format: of the networks' convolutions, and by them of all feature maps.
        compiler: torch's backend, or None.
        tf32: whether GPUs may round the factors of float32 products to 10 bits: True, False, or None for torch's own choice.

    Raises:
        OptionError: ``amp`` has a value that is not offered.
    """

    def __init__(self, train: dict[str, Any], device: torch.device):
        self.device = device
        self.autocast = autocast_dtype(train.get('amp'), device)
        # what only restores: see utils.frozen
        wanted = train.get('channels_last', not train and device.type == 'cpu')
        if wanted == 'auto':  # GPUs: not measured
            wanted = self.autocast is not None and device.type == 'cpu'
        self.memory_format = torch.channels_last if wanted else torch.contiguous_format
        self.compiler = COMPILERS.get(train.get('compile', False))
        self.tf32 = train.get('tf32')

    def prepare(self, net: nn.Module) -> nn.Module:
        """Move a bridge's network to the device and set it up in place; state dict and module stay what they were.

        The compiler comes at the first call, and anew for every combination of what has a gradient: a student, its EMA copy, the bridge
        network and the teacher are five or six. A call that cannot be compiled as a whole is an error, never quietly interpreted.

        Raises:
            OptionError: this torch cannot compile under this Python.
        """
        net = net.to(self.device, memory_format=self.memory_format)
        if self.compiler is not None:
            try:
                net.compile(backend=self.compiler, fullgraph=True, dynamic=False)
            except (AttributeError, RuntimeError) as error:
                raise OptionError(f'train.compile: not with torch {torch.__version__} under Python {sys.version.split()[0]} '
                                  f'({error}).') from error
        return net

    def set_tf32(self) -> None:
        """Hand ``tf32`` to torch, for this process and all that it computes on a GPU."""
        if self.tf32 is None or self.device.type != 'cuda':
            return
        with warnings.catch_warnings():
            # torch 2.9 asks for other names, which its own compiler does not read yet
            warnings.filterwarnings('ignore', message='Please use the new API settings to control TF32')
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32


def compile_problems(choice: str | bool, device_type: str) -> list[str]:
    """Return one line for each thing that ``train.compile`` needs and this machine lacks.

    Args:
        choice: ``train.compile``, one of :data:`SWITCHES`.
        device_type: ``cpu`` or ``cuda``.
    """
    if not choice:
        return []
    path = f'train.compile: {str(choice).lower()}'
    if not hasattr(nn.Module, 'compile'):
        return [f'{path}: needs torch 2.2 or later, found {torch.__version__}.']
    if COMPILERS.get(choice) != 'inductor':
        return []
    problems = []
    compiler = os.environ.get('CXX') or ('clang++' if sys.platform == 'darwin' else 'g++')
    if shutil.which(compiler) is None:
        problems.append(f'{path}: needs a C++ compiler, {compiler!r} is not installed (apt-get install g++; CXX names another).')
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.is_file():
        problems.append(f"{path}: needs Python's headers, there is no {header} (apt-get install python3-dev).")
    if device_type == 'cuda' and find_spec('triton') is None:
        problems.append(f'{path}: needs triton on a GPU, which is not installed.')
    return problems


def align_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded optimiser state the memory format of its parameters: fused steps refuse, or mistake, any other."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
