"""``python -m ibmd_basicsr.doctor``: versions, devices, known problems of an installation, and a restoration whose result is known."""
from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from ibmd_basicsr.cli.arguments import CommandParser
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.diagnosis import environment
from ibmd_basicsr.diagnosis.findings import FAIL, WARN, Finding, collect

EPILOG = """\
examples:
  python -m ibmd_basicsr.doctor
  python -m ibmd_basicsr.doctor --json > doctor.json       # for a report of a problem

The self-test restores one image with shipped weights (or, where they are not, with a small random network) and compares its PSNR with a
recorded one, on the CPU and on a GPU if there is one. Nothing is downloaded; nothing is written but one empty temporary file per folder.

exit codes: 0 nothing failed (warnings may be there); 1 something failed; 130 interrupted."""


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(prog='python -m ibmd_basicsr.doctor', epilog=EPILOG,
                           description='Look for what is wrong with this installation; a line each, with what to do about it.')
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
    return parser


def _self_test() -> Iterator[Finding]:
    yield from importlib.import_module('ibmd_basicsr.diagnosis.selftest').check_restoration()  # imports what the other checks look at


CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ('python', environment.check_python), ('torch', environment.check_torch), ('packages', environment.check_packages),
    ('owners', environment.check_owners), ('basicsr', environment.check_basicsr), ('devices', environment.check_devices),
    ('precision', environment.check_precision), ('folders', environment.check_folders),
    ('shared memory', environment.check_shared_memory), ('self-test', _self_test))


@report_errors('interrupted.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    args = make_parser().parse_args(arguments)
    start = time.monotonic()
    findings = []
    for finding in collect(CHECKS):
        findings.append(finding)
        if not args.json:
            print(f'{finding.level:4}  {finding.topic}: {finding.text}', flush=True)
            if finding.remedy:
                print(f'      -> {finding.remedy}', flush=True)
    failed, warned = (sum(finding.level == level for finding in findings) for level in (FAIL, WARN))
    if args.json:
        summary = {'ok': failed == 0, 'failed': failed, 'warnings': warned}
        print(json.dumps(summary | {'findings': [asdict(one) for one in findings]}, indent=1))
    else:
        print(f'{failed} failed, {warned} warning(s), {time.monotonic() - start:.0f} s')
    return 1 if failed else 0
