"""Cut the test photographs of 256 x 256 pixels into their four quadrants, for models of 128 x 128 pixels.

    python scripts/prepare_tiles.py [--photos datasets/photos/test] [--out datasets/photos/test128]

NAME.png becomes NAME_0.png .. NAME_3.png: upper left, upper right, lower left, lower right. Deterministic.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import DataError
from ibmd_basicsr.utils.image_files import read_photo


@report_errors('interrupted; the folder is incomplete.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 if there is no photograph, or one of another size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, default=Path('datasets/photos/test'), help='folder of PNG files (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('datasets/photos/test128'), help='where they go (default: %(default)s)')
    args = parser.parse_args(arguments)
    files = sorted(args.photos.glob('*.png'))
    if not files:
        raise DataError(f'{args.photos}: holds no PNG file.')
    photos = {file: read_photo(file) for file in files}
    for file, photo in photos.items():
        if photo.size != (256, 256):
            raise DataError(f'{file}: {photo.width}x{photo.height} pixels, expected 256x256.')
    args.out.mkdir(parents=True, exist_ok=True)
    for file, photo in photos.items():
        for i in range(4):
            left, top = i % 2 * 128, i // 2 * 128
            photo.crop((left, top, left + 128, top + 128)).save(args.out / f'{file.stem}_{i}.png', optimize=True)
    print(f'{args.out}: {4 * len(photos)} tiles')
    return 0


if __name__ == '__main__':
    sys.exit(main())
