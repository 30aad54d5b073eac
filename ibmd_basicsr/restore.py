"""``python -m ibmd_basicsr.restore INPUT... -o OUT``: restore photographs (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.restore import main

if __name__ == '__main__':
    sys.exit(main())
