"""``python -m ibmd_basicsr.create_lmdb FOLDER OUTPUT.lmdb``: pack a folder of images into an LMDB that BasicSR reads."""
from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError

EPILOG = """\
examples:
  python -m ibmd_basicsr.create_lmdb datasets/photos/train datasets/photos_train.lmdb

then, in the option file:
  dataroot_gt: datasets/photos_train.lmdb
  io_backend: {type: lmdb}

The files go in as they are (JPEG stays JPEG), after each has been decoded once to be sure that it can be. Keys are the paths below FOLDER
without ending, in plain ASCII. OUTPUT.lmdb appears when it is complete; an interrupted run leaves nothing that could be taken for it.

exit codes: 0 done; 2 wrong command line, folder or image; 130 interrupted."""

PAGE = 4096
"""LMDB stores values in whole pages of this size."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog='python -m ibmd_basicsr.create_lmdb', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Pack the images of a folder and its subfolders into an LMDB: one file that reads faster than thousands.')
    parser.add_argument('folder', metavar='FOLDER', type=Path, help='folder with images')
    parser.add_argument('output', metavar='OUTPUT.lmdb', type=Path, help='LMDB to make; must not exist')
    return parser


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    if args.output.suffix != '.lmdb':
        raise OptionError(f'{args.output}: the name of an LMDB must end with .lmdb.')
    if args.output.exists():
        raise OptionError(f'{args.output}: exists already; remove it or choose another name.')
    if not args.folder.is_dir():
        raise FileNotFoundError(f'{args.folder}: no such folder.')
    count = create_lmdb(args.folder, args.output)
    size = sum(file.stat().st_size for file in args.output.iterdir())
    print(f'{args.output}: {count} images, {size / 2**20:.1f} MiB')
    return 0


def image_key(name: str) -> str:
    """Return the LMDB key of an image: its path without ending; ``.``, blanks and non-ASCII, which BasicSR cannot read, become ``_``."""
    return re.sub(r'[^!-\-/-~]', '_', str(Path(name).with_suffix('').as_posix()))


def create_lmdb(folder: Path, output: Path, progress: bool = True) -> int:
    """Write the images below ``folder`` to ``output`` with BasicSR's ``LmdbMaker`` and return their number.

    Args:
        folder, output: see the command.
        progress: show a bar.

    Raises:
        OptionError: no image, an image that cannot be decoded, or two images with one key.
    """
    from basicsr.utils.lmdb_util import LmdbMaker
    from tqdm import tqdm

    from ibmd_basicsr.utils.image_files import decode_image
    from ibmd_basicsr.utils.image_sets import EXTENSIONS, list_images
    names = list_images(folder)
    if not names:
        raise OptionError(f'{folder}: holds no image ({", ".join(EXTENSIONS)}).')
    keys: dict[str, str] = {}
    for name in names:
        key = image_key(name)
        if key in keys:
            raise OptionError(f'{folder}: {keys[key]} and {name} would share the key {key!r}; rename one.')
        keys[key] = name

    partial = output.with_name(f'.{output.stem}.partial.lmdb')
    shutil.rmtree(partial, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    map_size = sum((folder / name).stat().st_size + 2 * PAGE for name in names) + 2**24
    try:
        maker = LmdbMaker(str(partial), map_size=map_size)
        try:
            for key, name in tqdm(keys.items(), unit='image', dynamic_ncols=True, disable=not progress):
                content = (folder / name).read_bytes()
                try:
                    shape = decode_image(content, str(folder / name)).shape
                except ValueError as error:
                    raise OptionError(str(error)) from error
                maker.put(content, key, shape)
        finally:
            maker.close()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(names)
