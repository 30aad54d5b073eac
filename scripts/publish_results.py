"""Copy what `compare` left into the documents: tables between their markers, picture grids into docs/images.

    python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --steps 1 5 20 100 999
    python -m ibmd_basicsr.compare -opt options/compare/jpeg10.yml --steps 1 5 20 100 999
    python scripts/publish_results.py README.md docs/results.md

A document says where a table goes by two lines, `<!-- table: results/compare/sr4x_nano -->` and `<!-- end of table -->`; what stands
between them is replaced by that folder's table.md without its heading. So no figure is copied by hand.
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r'(<!-- table: (?P<folder>\S+) -->\n).*?(<!-- end of table -->)', re.DOTALL)


def main() -> int:
    """Run the command; 2 if a document has no marker or a comparison has not been run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('documents', nargs='+', type=Path, metavar='FILE.md')
    parser.add_argument('--width', type=int, default=1200, help='of the pictures, in pixels (default: %(default)s)')
    args = parser.parse_args()
    folders: set[Path] = set()

    def fill(match: re.Match) -> str:
        folder = ROOT / match['folder']
        folders.add(folder)
        table = (folder / 'table.md').read_text(encoding='utf-8').split('\n', 1)[1].strip()
        return f'{match[1]}{table}\n{match[3]}'

    try:
        for document in args.documents:
            text, count = MARKED.subn(fill, document.read_text(encoding='utf-8'))
            if not count:
                print(f'error: {document}: holds no <!-- table: FOLDER --> ... <!-- end of table -->.', file=sys.stderr)
                return 2
            document.write_text(text, encoding='utf-8')
    except OSError as error:
        print(f'error: {error.filename}: {error.strerror}. Run the comparison first.', file=sys.stderr)
        return 2
    for folder in sorted(folders):
        for file in sorted(folder.glob('grid*.png')):  # one, or with several test sets grid_SET.png
            grid = cv2.imread(str(file))
            height = round(grid.shape[0] * args.width / grid.shape[1])
            target = ROOT / 'docs' / 'images' / f'{folder.name}{file.stem.removeprefix("grid")}.jpg'
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), cv2.resize(grid, (args.width, height), interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, 90])
            print(f'{target.relative_to(ROOT)}: {target.stat().st_size // 1024} KiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
