"""``python -m ibmd_basicsr.export WEIGHTS -o FILE``: a student as safetensors or as an ONNX graph (``--help`` shows examples)."""
import sys

from ibmd_basicsr.cli.export import main

if __name__ == '__main__':
    sys.exit(main())
