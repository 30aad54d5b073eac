"""Make datasets/photos from the photographs of two packages, CC0, public domain or CC-BY (datasets/photos/README.md).

    python scripts/prepare_photos.py --budgie FOLDER --lomiri FOLDER [--out datasets/photos]

The first folder holds the JPEG files of Debian's package budgie-backgrounds, halved by Lanczos (the originals are JPEGs of twice the
size); the second those of lomiri-wallpapers-16.04 as they are. The other photographs come from the installed scikit-image wheel.
Either folder may be left out with what comes from it. Deterministic.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import skimage
from PIL import Image

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.image_files import read_photo

TRAIN_BUDGIE = ('beacon-street-sunset', 'blue-periwinkle', 'canyon-wren', 'casa-mila', 'extreme-desert-hike', 'high-trestle-trail',
                'lake-sherburne', 'perched-osprey', 'singaporean-cityscape')
TRAIN_SKIMAGE = ('brick', 'grass', 'gravel', 'rocket')
# name of the crop: photograph, left and top corner in the (halved) photograph; none of these photographs is in the training set
TEST_BUDGIE = {'colosseum_a': ('roman-colosseum', 150, 20), 'colosseum_b': ('roman-colosseum', 430, 170),
               'otters_a': ('oakland-zoo-otters', 500, 120), 'otters_b': ('oakland-zoo-otters', 240, 240)}
TEST_SKIMAGE = {'astronaut_a': ('astronaut', 130, 0), 'astronaut_b': ('astronaut', 60, 250), 'chelsea': ('chelsea', 80, 20),
                'coffee': ('coffee', 200, 60)}
# name of the crop: photograph, divisor of its size, left and top corner in the reduced photograph; in neither other set
TUNE_LOMIRI = {'fig': ('Picture_0B_by_freespace', 4, 250, 120), 'brushes': ('Picture_1A_by_freespace', 2, 230, 60),
               'drum': ('Wine_by_Jakkub_Mede', 4, 180, 430), 'dogs': ('friends_by_Aitzol_Berasategi', 4, 150, 160),
               'mountains': ('picosdeeuropa_by_Aitzol_Berasategi', 4, 250, 90), 'dandelion': ('seeding_by_Clements_Engelhardt', 6, 60, 60),
               'stream': ('life_by_Aitzol_Berasategi', 4, 300, 150), 'forest': ('aitzgorri_by_Aitzol_Berasategi', 4, 350, 120)}
CROP = 256


def skimage_file(name: str) -> Path:
    """Return the path of an image inside the scikit-image wheel."""
    folder = Path(skimage.__file__).parent / 'data'
    return next(path for path in (folder / f'{name}.png', folder / f'{name}.jpg') if path.is_file())


@report_errors('interrupted; the folder is incomplete.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 if a photograph is missing or cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--budgie', type=Path, help='folder with the photographs of budgie-backgrounds')
    parser.add_argument('--lomiri', type=Path, help='folder with the photographs of lomiri-wallpapers-16.04')
    parser.add_argument('--out', type=Path, default=Path('datasets/photos'))
    args = parser.parse_args(arguments)
    for option, folder in (('--budgie', args.budgie), ('--lomiri', args.lomiri)):
        if folder and not folder.is_dir():
            raise OptionError(f'{option} {folder}: no such folder.')
    for split in ('train', 'tune', 'test'):
        (args.out / split).mkdir(parents=True, exist_ok=True)

    if args.budgie:
        for name in TRAIN_BUDGIE:
            photo = read_photo(args.budgie / f'{name}.jpg')
            photo = photo.resize((photo.width * 3 // 4, photo.height * 3 // 4), Image.Resampling.LANCZOS)
            save_photo(photo, args.out / 'train' / f'{name}.jpg')
        for crop, (name, left, top) in TEST_BUDGIE.items():
            save_crop(reduced(args.budgie / f'{name}.jpg', 2), left, top, args.out / 'test' / f'{crop}.png')
    if args.lomiri:
        for crop, (name, divisor, left, top) in TUNE_LOMIRI.items():
            save_crop(reduced(args.lomiri / f'{name}.jpg', divisor), left, top, args.out / 'tune' / f'{crop}.png')
    for name in TRAIN_SKIMAGE:
        save_photo(read_photo(skimage_file(name)), args.out / 'train' / f'{name}.jpg')
    for crop, (name, left, top) in TEST_SKIMAGE.items():
        save_crop(read_photo(skimage_file(name)), left, top, args.out / 'test' / f'{crop}.png')
    return 0


def reduced(path: Path, divisor: int) -> Image.Image:
    """Return a photograph at 1/divisor of its size, by Lanczos."""
    photo = read_photo(path)
    return photo.resize((photo.width // divisor, photo.height // divisor), Image.Resampling.LANCZOS)


def save_photo(photo: Image.Image, path: Path) -> None:
    """Write a training photograph as a JPEG of high quality without chroma subsampling."""
    photo.save(path, quality=95, subsampling=0, optimize=True)


def save_crop(photo: Image.Image, left: int, top: int, path: Path) -> None:
    """Write the square of :data:`CROP` pixels at (left, top) as PNG."""
    photo.crop((left, top, left + CROP, top + CROP)).save(path, optimize=True)


if __name__ == '__main__':
    sys.exit(main())
