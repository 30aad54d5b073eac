"""``python -m ibmd_basicsr.create_lmdb FOLDER OUTPUT.lmdb``: pack a folder of images into an LMDB (``--help`` shows an example)."""
import sys

from ibmd_basicsr.cli.create_lmdb import main

if __name__ == '__main__':
    sys.exit(main())
