"""``python -m ibmd_basicsr.bench``: what training and restoring cost beside their bare network passes (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.bench import main

if __name__ == '__main__':
    sys.exit(main())
