"""Make a small weight file for distribution from a training checkpoint: EMA weights alone, in half precision.

    python scripts/export_weights.py experiments/sr4x_ibmd_nano/models/net_g_latest.pth weights/sr4x_nano_student.pth

The networks compute in float32 whatever the file holds; loading casts. Prints the size and the sha256 of the file.
"""
from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import torch

from ibmd_basicsr.checkpoints.state_dict import load_params, save_atomically
from ibmd_basicsr.utils.errors import CheckpointError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='models/net_g_*.pth of a run')
    parser.add_argument('output', type=Path, help='file to write')
    parser.add_argument('--param_key', default='params_ema', help='which weights of the checkpoint (default: %(default)s)')
    args = parser.parse_args()
    try:
        params = load_params(args.checkpoint, args.param_key)
    except CheckpointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    half = {name: value.half() if value.is_floating_point() else value for name, value in params.items()}
    overflown = [name for name, value in half.items() if not torch.isfinite(value).all()]
    if overflown:
        print(f'error: {args.checkpoint}: {overflown[0]} does not fit into half precision.', file=sys.stderr)
        return 2
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_atomically({'params_ema': half}, args.output)
    content = args.output.read_bytes()
    print(f'{args.output}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
