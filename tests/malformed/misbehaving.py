"""A command that does all that it must not, for the test of the runner. Its argument ``hang`` lets it wait for ever."""
import os
import sys
import time

from malformed.case import EXECUTED

if __name__ == '__main__':
    if 'hang' in sys.argv:
        time.sleep(1e6)
    os.system(f'mkdir {EXECUTED}')
    with open('good.png', 'wb') as file:
        file.write(b'changed')
    with open('half.tmp', 'wb') as file:
        file.write(b'left')
    sys.stderr.write('Traceback (most recent call last):\n  File "x.py", line 1\nValueError: x\n')
    sys.exit(1)
