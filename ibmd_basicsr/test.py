"""``python -m ibmd_basicsr.test -opt FILE``: run a trained model on test sets with BasicSR (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.pipelines import main

if __name__ == '__main__':
    sys.exit(main(is_train=False))
