"""ResultStore: results that survive an interruption, one JSON line each, recognised by a fingerprint of what they came from."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(*parts: Any) -> str:
    """Return a short digest of ``parts`` (anything JSON can hold), equal for equal parts on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class ResultStore:
    """Results by (data set, row, image), appended to a file as soon as they are there.

    The newest line of each counts. Lines that are no results are ignored, such as a last one that an interruption cut off.

    Args:
        path: the ``.jsonl`` file; made with its folder when it is not there.
        fresh: forget what the file holds.
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self._records: dict[tuple[str | None, str, str | None], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh or not path.exists():
            path.write_text('')
        text = path.read_text(encoding='utf-8')
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if _is_record(record):
                self._records[_place(record)] = record
        if text and not text.endswith('\n'):
            with path.open('a') as file:
                file.write('\n')

    def get(self, dataset: str, row: str, image: str | None, expected: str) -> dict[str, Any] | None:
        """Return the result of an image (None: of the whole set) if it was made under the fingerprint ``expected``, else None."""
        record = self._records.get((dataset, row, image))
        return record if record and record['fingerprint'] == expected else None

    def add(self, record: dict[str, Any]) -> None:
        """Write a result: ``dataset``, ``row``, ``image``, ``fingerprint`` and whatever was measured."""
        with self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(record) + '\n')
        self._records[_place(record)] = record


def _place(record: dict[str, Any]) -> tuple[str | None, str, str | None]:
    return record.get('dataset'), record['row'], record['image']  # earlier versions knew one data set alone


def _is_record(content: Any) -> bool:
    """Tell whether what a line holds can be a result: the file may have been edited or damaged."""
    texts = ('row', 'fingerprint')
    return isinstance(content, dict) and 'image' in content and all(isinstance(content.get(key), str) for key in texts) and all(
        isinstance(content.get(key), (str, type(None))) for key in ('dataset', 'image'))
