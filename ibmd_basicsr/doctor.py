"""``python -m ibmd_basicsr.doctor``: what may be wrong with this installation (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.doctor import main

if __name__ == '__main__':
    sys.exit(main())
