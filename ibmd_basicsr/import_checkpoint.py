"""``python -m ibmd_basicsr.import_checkpoint FILE``: a published checkpoint into BasicSR's form (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.import_checkpoint import main

if __name__ == '__main__':
    sys.exit(main())
