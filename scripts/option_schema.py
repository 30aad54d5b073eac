"""Write options/schema.json, which editors check option files with while they are typed.

    python scripts/option_schema.py

The first line of the option files names it (`# yaml-language-server: $schema=...`): VS Code with the YAML extension, and every editor with
yaml-language-server, then completes keys, shows what each is for and marks what is wrong.
"""
from __future__ import annotations

import json
from pathlib import Path

import ibmd_basicsr.metrics  # noqa: F401  (registers what option files name)
from ibmd_basicsr.models.option_schema import option_schema

FILE = Path(__file__).resolve().parents[1] / 'options' / 'schema.json'


def schema_text() -> str:
    """Return what the file holds."""
    return json.dumps(option_schema(), indent=1, ensure_ascii=False) + '\n'


if __name__ == '__main__':
    FILE.write_text(schema_text(), encoding='utf-8')
    print(f'wrote {FILE}')
