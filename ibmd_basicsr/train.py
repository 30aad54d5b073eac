"""``python -m ibmd_basicsr.train -opt FILE``: train or distil with BasicSR's training loop (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.pipelines import main

if __name__ == '__main__':
    sys.exit(main(is_train=True))
