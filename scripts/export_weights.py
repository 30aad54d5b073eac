"""Make a small weight file for distribution from a training checkpoint: EMA weights alone, in half precision.

    python scripts/export_weights.py experiments/sr4x_ibmd_nano/models/net_g_latest.pth weights/sr4x_nano_student.pth

The networks compute in float32 whatever the file holds; loading casts. Prints the size and the sha256 of the file.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ibmd_basicsr.checkpoints.conversion import export_half
from ibmd_basicsr.cli.errors import report_errors


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='models/net_g_*.pth of a run')
    parser.add_argument('output', type=Path, help='file to write')
    parser.add_argument('--param_key', default='params_ema', help='which weights of the checkpoint (default: %(default)s)')
    args = parser.parse_args(arguments)
    digest = export_half(args.checkpoint, args.output, args.param_key)
    print(f'{args.output}: {args.output.stat().st_size:,} bytes, sha256 {digest}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
