"""Published checkpoints of bridges and of ADM: weights, network and bridge of a file, for the command and for Python."""
