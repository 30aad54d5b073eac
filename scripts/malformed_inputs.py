"""Give every command malformed input, each time in a process of its own, and print what it says of it.

    python scripts/malformed_inputs.py                # all
    python scripts/malformed_inputs.py checkpoint/    # those whose names hold this text

A line a case: exit code, seconds, the most memory that the process had (MiB, torch included), and the one line that the user reads; below
it what is wrong: another exit code, a traceback, no line or several, more than 2 GiB or 20 s, code that was run, a file that was changed.

exit codes: 0 nothing is wrong; 1 something is; 2 no case of this name.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

from ibmd_basicsr.cli.errors import report_errors

TESTS = Path(__file__).resolve().parents[1] / 'tests'


@report_errors('interrupted.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='TEXT', help='only cases whose names hold one of these texts')
    args = parser.parse_args(arguments)

    sys.path.insert(0, str(TESTS))  # the corpus is the tests'; imported here, each process would otherwise make it anew
    from malformed.case import make_good
    from malformed.corpus import all_cases
    from malformed.runner import run_case
    chosen = [case for case in all_cases() if not args.parts or any(part in case.name for part in args.parts)]
    if not chosen:
        print(f'error: no case holds {" or ".join(args.parts)} in its name.', file=sys.stderr)
        return 2
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_good(root / 'good')
        for number, case in enumerate(chosen):
            outcome = run_case(case, root / 'good', root / f'{number}')
            outcomes.append(outcome)
            told = '\n'.join(outcome.lines[-2:]).replace(f'{root / str(number)}/', '')
            print(f'{case.name:45s} {outcome.code!s:>4s} {outcome.seconds:5.1f} s {outcome.mebibytes:5.0f} MiB  {told}')
            for problem in outcome.problems:
                print(f'    WRONG: {problem}')
            sys.stdout.flush()
    families = Counter(case.name.partition('/')[0] for case in chosen)
    wrong = sum(bool(outcome.problems) for outcome in outcomes)
    print(f'\n{len(chosen)} inputs ({", ".join(f"{number} {name}" for name, number in families.items())}): {wrong} wrong; '
          f'at most {max(outcome.seconds for outcome in outcomes):.1f} s and {max(outcome.mebibytes for outcome in outcomes):.0f} MiB, '
          f'{sum(outcome.seconds for outcome in outcomes):.0f} s in all; {date.today()}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
