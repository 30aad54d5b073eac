"""Write options/schema.json, which editors check option files with while they are typed.

    python scripts/option_schema.py            # writes the file
    python scripts/option_schema.py --check    # writes nothing, says whether it is out of date

The first line of the option files names it (`# yaml-language-server: $schema=...`): VS Code with the YAML extension, and every editor with
yaml-language-server, then completes keys, shows what each is for and marks what is wrong.

exit codes: 0 done, or up to date; 1 (--check) out of date.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ibmd_basicsr.metrics  # noqa: F401  (registers what option files name)
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.models.option_schema import option_schema

FILE = Path(__file__).resolve().parents[1] / 'options' / 'schema.json'


def schema_text() -> str:
    """Return what the file holds."""
    return json.dumps(option_schema(), indent=1, ensure_ascii=False) + '\n'


@report_errors('interrupted; nothing was written.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit code 1 if the file is out of date')
    args = parser.parse_args(arguments)
    text = schema_text()
    if args.check:
        if FILE.is_file() and FILE.read_text(encoding='utf-8') == text:
            return 0
        print(f'{FILE}: out of date, run scripts/option_schema.py.', file=sys.stderr)
        return 1
    FILE.write_text(text, encoding='utf-8')
    print(f'wrote {FILE}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
