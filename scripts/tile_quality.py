"""What tiles do to a restoration: how far it is from the image in one piece, and which of the two is nearer to the truth.

    python scripts/tile_quality.py options/test/sr4x_ibmd.yml options/test/jpeg10_ibmd.yml
    python scripts/tile_quality.py options/test/sr4x_ibmd.yml --photos my_photos --tiles 192+32 512+32

For each option file of a test a Markdown table of its restorer on whole photographs (default: two of scikit-image, crops of which are
test photographs here), in dB: PSNR of tiles against the image in one piece, over all pixels and over those within and beyond 8 pixels of a
seam; and how much more PSNR to the truth the tiles have, 4 pixels at the border left out. Tiles are the side of the core and the halo in
pixels of the result; one field of noise for all.

exit codes: 0 done; 2 an option file, photographs or tiles that cannot be used.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import skimage.data
import torch
from basicsr.metrics import calculate_psnr
from basicsr.utils import tensor2img
from tqdm import tqdm

from ibmd_basicsr.benchmarks.tiles import agreement_by_place, near_seams
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.compat.options import read_options
from ibmd_basicsr.models.recipes import recipe_from_options
from ibmd_basicsr.reporting.comparison import device_name
from ibmd_basicsr.reporting.pictures import Picture, load_pictures
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.utils.errors import OptionError, one_line
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import plan_tiles, restore_tiled

PHOTOGRAPHS = ('astronaut', 'coffee')
TILES = ((128, 16), (128, 32), (192, 32), (256, 32))
BORDER = 4
CPU = torch.device('cpu')


@report_errors('interrupted.')
def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('options', nargs='+', type=Path, metavar='FILE.yml', help='option file of a test')
    parser.add_argument('--photos', type=Path, metavar='FOLDER', help=f'photographs (default: {" and ".join(PHOTOGRAPHS)} of scikit-image)')
    parser.add_argument('--tiles', nargs='+', type=tile_and_halo, default=TILES, metavar='CORE+HALO',
                        help=f'(default: {" ".join(f"{tile}+{halo}" for tile, halo in TILES)})')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in () if args.photos else PHOTOGRAPHS:
            cv2.imwrite(f'{folder}/{name}.png', getattr(skimage.data, name)()[..., ::-1])
        try:
            runs = [(file, *prepare(file, args.photos or Path(folder))) for file in args.options]
            for _, _, opt, _ in runs:
                for side in (side for tile in args.tiles for side in tile):
                    if side % opt['scale']:
                        raise OptionError(f'--tiles: {side} is not a multiple of the scale {opt["scale"]}.')
        except (OSError, ValueError) as error:
            print(f'error: {one_line(error)}', file=sys.stderr)
            return 2
    for file, restorer, opt, pictures in runs:
        print(f'{file}, {device_name(CPU)}\n\n{table(restorer, opt["scale"], pictures, args.tiles)}\n')
    return 0


def tile_and_halo(text: str) -> tuple[int, int]:
    """Read a core and a halo such as ``192+32``."""
    core, plus, halo = text.partition('+')
    if not (plus and core.isdecimal() and halo.isdecimal() and int(core)):
        raise argparse.ArgumentTypeError(f'must be core and halo, such as 192+32, got {text!r}')
    return int(core), int(halo)


def prepare(file: Path, photos: Path) -> tuple[Restorer, dict[str, Any], list[Picture]]:
    """Return the restorer of a test's option file, the file, and the photographs with its corruption.

    Raises:
        OSError, ValueError: what is missing or cannot be used.
    """
    opt = read_options(file)
    if not ({'datasets', 'network_g', 'bridge', 'path', 'val', 'scale'} <= opt.keys() and opt['path'].get('pretrain_network_g')):
        raise OptionError(f'{file}: is no option file of a test of BridgeModel, such as options/test/sr4x_ibmd.yml.')
    dataset = next(iter(opt['datasets'].values())) | {'dataroot_gt': str(photos)}
    return recipe_from_options(file).build(CPU), opt, load_pictures(opt | {'dataset': dataset}, None)


def table(restorer: Restorer, scale: int, pictures: list[Picture], tiles: list[tuple[int, int]]) -> str:
    """Return the Markdown table of a restorer, with four columns for each picture."""
    cells = {tile: [f'{tile[0]} + {tile[1]}'] for tile in tiles}
    for picture in tqdm(pictures, unit='photograph'):
        noise = PerImageNoise.for_images(0, [picture.name])
        whole = restorer(picture.lq, noise)
        for tile, halo in tiles:
            tiled = restore_tiled(restorer, picture.lq, PerImageNoise.for_images(0, [picture.name]), scale=scale, tile=tile // scale,
                                  halo=halo // scale)
            near = near_seams(plan_tiles(*picture.lq.shape[-2:], tile // scale, halo // scale, restorer.size_multiple), scale)
            gain = to_truth(tiled, picture) - to_truth(whole, picture)
            cells[tile, halo] += [*(f'{value:.1f}' for value in agreement_by_place(tiled, whole, near)), f'{gain:+.2f}'.replace('-', '−')]
    headings = [heading for picture in pictures
                for heading in (f'{picture.name}: all', '8 px at seams', 'elsewhere', 'to the truth')]
    lines = [['tile + halo', *headings], ['---', *('---:' for _ in headings)], *cells.values()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def to_truth(image: torch.Tensor, picture: Picture) -> float:
    """Return the PSNR in dB of 8-bit images."""
    return calculate_psnr(tensor2img(image), tensor2img(picture.gt), crop_border=BORDER)


if __name__ == '__main__':
    sys.exit(main())
