"""How commands tell of errors: one line on stderr and an exit code; bugs keep their traceback."""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from ibmd_basicsr.utils.errors import exit_code, one_line


def report_errors(on_interrupt: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorate the ``main`` of a command: errors that are the user's to mend become a line and an exit code.

    Args:
        on_interrupt: what to say after Ctrl-C (exit code 130).
    """
    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def wrapped(*args, **kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except KeyboardInterrupt:
                print(f'error: {on_interrupt}', file=sys.stderr)
                return 130
            except Exception as error:
                code = exit_code(error)
                if code is None:
                    raise
                print(f'error: {one_line(error)}', file=sys.stderr)
                return code
        return wrapped
    return decorate
