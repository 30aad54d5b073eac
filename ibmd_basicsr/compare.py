"""``python -m ibmd_basicsr.compare -opt FILE``: restorers side by side (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.compare import main

if __name__ == '__main__':
    sys.exit(main())
