"""In which precision networks run: float32, or autocast where the machine multiplies a narrower type faster."""
from __future__ import annotations

from typing import TYPE_CHECKING

from ibmd_basicsr.utils.errors import OptionError

if TYPE_CHECKING:
    import torch

PRECISIONS = ('fp32', 'bf16', 'fp16', 'auto')
"""Of restoring. Command lines name them before torch is needed, whose import takes seconds: the functions below import it."""


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether bf16 is faster than float32 on ``device``: CUDA GPUs since Ampere (older ones emulate it), CPUs that multiply it.

    Those have AMX, or AVX-512 with its bf16 instructions, with which an iteration takes 0.7 of the time. With plain AVX-512 that of the
    nano teacher takes 1.5 times as long.
    """
    import torch
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # unknown to torch before 2.6
    return device.type == 'cpu' and any(getattr(torch.cpu, f'_is_{name}_supported', bool)() for name in ('amx_tile', 'avx512_bf16'))


def autocast_dtype(amp: str | bool | None, device: torch.device) -> torch.dtype | None:
    """Return the dtype of ``train.amp``: ``bf16``, ``auto`` (bf16 where it is faster) or nothing (float32).

    Raises:
        OptionError: another value.
    """
    import torch
    if not amp:
        return None
    if amp not in ('bf16', 'auto'):
        raise OptionError(f"train.amp must be 'bf16', 'auto' or false, got {amp!r}.")
    return torch.bfloat16 if amp == 'bf16' or multiplies_bf16(device) else None


def check_precision(precision: str) -> None:
    """Check a precision of restoring.

    Raises:
        OptionError: not one of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise OptionError(f'precision: must be one of {", ".join(map(repr, PRECISIONS))}, got {precision!r}.')


def restoring_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what a network is autocast to when it restores; None for float32.

    Args:
        precision: ``fp32``; ``bf16``; ``fp16``, on GPUs alone; ``auto``, bf16 where it is faster.
        device: of the network.

    Raises:
        OptionError: another value, or fp16 on a CPU.
    """
    import torch
    check_precision(precision)
    if precision == 'fp16' and device.type == 'cpu':
        raise OptionError("precision: 'fp16' needs a GPU, the network is on the CPU; 'fp32', 'bf16' and 'auto' run there, too.")
    if precision == 'auto':
        return torch.bfloat16 if multiplies_bf16(device) else None
    return {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}[precision]
