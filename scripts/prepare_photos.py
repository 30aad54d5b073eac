"""Make datasets/photos from the photographs of two packages, all CC0 or public domain (datasets/photos/README.md).

    python scripts/prepare_photos.py --budgie FOLDER [--out datasets/photos]

FOLDER holds the JPEG files of Debian's package budgie-backgrounds, halved by Lanczos (the originals are JPEGs of twice the size).
The other photographs come from the installed scikit-image wheel. Deterministic.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import skimage
from PIL import Image

TRAIN_BUDGIE = ('beacon-street-sunset', 'blue-periwinkle', 'canyon-wren', 'casa-mila', 'extreme-desert-hike', 'high-trestle-trail',
                'lake-sherburne', 'perched-osprey', 'singaporean-cityscape')
TRAIN_SKIMAGE = ('brick', 'grass', 'gravel', 'rocket')
# name of the crop: photograph, left and top corner in the (halved) photograph; none of these photographs is in the training set
TEST_BUDGIE = {'colosseum_a': ('roman-colosseum', 150, 20), 'colosseum_b': ('roman-colosseum', 430, 170),
               'otters_a': ('oakland-zoo-otters', 500, 120), 'otters_b': ('oakland-zoo-otters', 240, 240)}
TEST_SKIMAGE = {'astronaut_a': ('astronaut', 130, 0), 'astronaut_b': ('astronaut', 60, 250), 'chelsea': ('chelsea', 80, 20),
                'coffee': ('coffee', 200, 60)}
CROP = 256


def skimage_file(name: str) -> Path:
    """Return the path of an image inside the scikit-image wheel."""
    folder = Path(skimage.__file__).parent / 'data'
    return next(path for path in (folder / f'{name}.png', folder / f'{name}.jpg') if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--budgie', type=Path, required=True, help='folder with the photographs of budgie-backgrounds')
    parser.add_argument('--out', type=Path, default=Path('datasets/photos'))
    args = parser.parse_args()
    for split in ('train', 'test'):
        (args.out / split).mkdir(parents=True, exist_ok=True)

    for name in TRAIN_BUDGIE:
        photo = Image.open(args.budgie / f'{name}.jpg').convert('RGB')
        photo = photo.resize((photo.width * 3 // 4, photo.height * 3 // 4), Image.Resampling.LANCZOS)
        photo.save(args.out / 'train' / f'{name}.jpg', quality=95, subsampling=0, optimize=True)
    for name in TRAIN_SKIMAGE:
        Image.open(skimage_file(name)).convert('RGB').save(args.out / 'train' / f'{name}.jpg', quality=95, subsampling=0, optimize=True)

    for crop, (name, left, top) in TEST_BUDGIE.items():
        photo = Image.open(args.budgie / f'{name}.jpg').convert('RGB')
        photo = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
        photo.crop((left, top, left + CROP, top + CROP)).save(args.out / 'test' / f'{crop}.png', optimize=True)
    for crop, (name, left, top) in TEST_SKIMAGE.items():
        photo = Image.open(skimage_file(name)).convert('RGB')
        photo.crop((left, top, left + CROP, top + CROP)).save(args.out / 'test' / f'{crop}.png', optimize=True)


if __name__ == '__main__':
    main()
