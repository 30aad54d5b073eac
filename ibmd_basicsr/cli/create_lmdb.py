"""``python -m ibmd_basicsr.create_lmdb FOLDER OUTPUT.lmdb``: pack a folder of images into an LMDB that BasicSR reads."""
from __future__ import annotations

from pathlib import Path

from ibmd_basicsr.cli.arguments import CommandParser
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import OptionError

EPILOG = """\
examples:
  python -m ibmd_basicsr.create_lmdb datasets/photos/train datasets/photos_train.lmdb

then, in the option file:
  dataroot_gt: datasets/photos_train.lmdb
  io_backend: {type: lmdb}

The files go in as they are (JPEG stays JPEG), after each has been decoded once to be sure that it can be. Keys are the paths below
FOLDER without ending, in plain ASCII. OUTPUT.lmdb appears when it is complete; an interrupted run leaves nothing that could be taken for
it, a killed one perhaps a hidden folder, .*.partial.lmdb, to be removed by hand.

exit codes: 0 done; 2 wrong command line, folder or image; 130 interrupted."""


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog='python -m ibmd_basicsr.create_lmdb', epilog=EPILOG,
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
    if not args.folder.is_dir():
        raise FileNotFoundError(f'{args.folder}: no such folder.')

    from ibmd_basicsr.data.lmdb_writer import create_lmdb
    count = create_lmdb(args.folder, args.output)
    size = sum(file.stat().st_size for file in args.output.iterdir())
    print(f'{args.output}: {count} images, {size / 2**20:.1f} MiB')
    return 0
