"""Errors of devices that are nobody's bug: memory that does not suffice, a GPU that fails or is gone."""
from __future__ import annotations

import re

import torch

LOST = 6
"""Exit code of a run whose GPU failed: the same command may well succeed elsewhere."""
OUT_OF_MEMORY = 2
"""Exit code of a run that needs more memory than there is: the same command fails again."""

_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|"
                     r"unable to find an engine", re.IGNORECASE)  # the last: cuDNN, where no algorithm fits into what is left
_DEVICE = re.compile(r'CUDA (driver )?error|CUBLAS_STATUS|CUDNN_STATUS|HIP error|nvml', re.IGNORECASE)
_GONE = re.compile(r'ECC error|NVLink error|unavailable|launch timed out|launch failure|unknown error|hardware|'
                   r'driver shutting down|no CUDA-capable device|GPU is lost|device lost|system not yet initialized|'
                   r'EXECUTION_FAILED|INTERNAL_ERROR', re.IGNORECASE)
"""Of the texts that CUDA has for its errors, those that do not come from what a program asked for. (Others, such as "illegal memory
access", "device-side assert" and "no kernel image", are bugs or wrong installations, and keep their traceback.)"""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was too little, on any device; torch raises a bare RuntimeError on CPUs."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def is_lost_device(error: BaseException) -> bool:
    """Tell whether an error says that a GPU failed or is gone; known by its text, as torch has one type for all of CUDA's errors."""
    first = (str(error).splitlines() or [''])[0]
    return isinstance(error, RuntimeError) and _DEVICE.search(first) is not None and _GONE.search(first) is not None


def device_failure(error: BaseException) -> tuple[str, int] | None:
    """Return what to say of an error and the exit code if a device is to blame, else None."""
    reason = (str(error).strip().splitlines() or [''])[0].rstrip('.')
    if is_out_of_memory(error):
        return (f'not enough memory for this run ({reason[:160] or type(error).__name__}); smaller: train.micro_batch, '
                'datasets.train.batch_size_per_gpu or gt_size, checkpoint_levels of the networks', OUT_OF_MEMORY)
    if is_lost_device(error):
        return f'the GPU failed or is gone ({reason[:160]})', LOST
    return None
