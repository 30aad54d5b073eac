"""Tables of comparisons that stand in documents: found by their markers and read back, so that what is made of them cannot differ."""
from __future__ import annotations

import re
from dataclasses import dataclass

TABLE = re.compile(r'(?P<opening><!-- table: (?P<name>\S+) -->\n)(?P<body>.*?)(?P<closing><!-- end of table -->)', re.DOTALL)
"""A table; its name is the comparison's folder below the root."""
SUMMARY = re.compile(r'(?P<opening><!-- summary: (?P<name>\S[^\n]*?) -->\n)(?P<body>.*?)(?P<closing><!-- end of summary -->)', re.DOTALL)
"""A summary of the document's tables; its name says which."""
_HEADING = re.compile(r'^#+ (.+)$', re.MULTILINE)
_WEIGHTS = re.compile(r'^\* (?P<rows>[^`\n]+): `(?P<file>[^`]+)` \(sha256 (?P<digest>[0-9a-f]+)\.\.\.', re.MULTILINE)
_COMMAND = re.compile(r'^\* `(?P<command>[^`]+)`, (?P<date>\d{4}-\d\d-\d\d)$', re.MULTILINE)


@dataclass(frozen=True)
class PublishedTable:
    """The table of a comparison as a document has it.

    Attributes:
        folder: of the comparison, below the root of the repository.
        heading: the last one above the table.
        markdown: the table's lines as they are.
        columns: headings of the columns, the first is that of the rows' names.
        rows: cells by row and column, as they are written, but without the bold of the best.
        explanation: the paragraph below the table: number of images, border, what the metrics are.
        command: what was typed, and ``date``, when; both empty if the table does not say.
        weights: file and first digits of its sha256 by row.
    """

    folder: str
    heading: str
    markdown: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    explanation: str
    command: str
    date: str
    weights: dict[str, tuple[str, str]]


def read_tables(text: str) -> dict[str, PublishedTable]:
    """Return the tables of comparisons in a document, by folder; one that nothing was filled in yet has neither columns nor rows."""
    tables = {}
    for match in TABLE.finditer(text):
        headings = _HEADING.findall(text, 0, match.start())
        tables[match['name']] = _read(match['name'], headings[-1] if headings else '', match['body'])
    return tables


def _read(folder: str, heading: str, body: str) -> PublishedTable:
    lines = [line for line in body.splitlines() if line.startswith('|')]
    columns, rows = (cells(lines[0]), [cells(line) for line in lines[2:]]) if lines else ([], [])
    below = [line for line in body.splitlines() if line and not line.startswith(('|', '*'))]
    command = _COMMAND.search(body)
    weights = {row: (match['file'], match['digest']) for match in _WEIGHTS.finditer(body) for row in match['rows'].split(', ')}
    return PublishedTable(folder, heading, '\n'.join(lines), tuple(columns), {row[0]: dict(zip(columns, row)) for row in rows},
                          ' '.join(below), command['command'] if command else '', command['date'] if command else '', weights)


def cells(line: str) -> list[str]:
    """Return the cells of a line of a Markdown table, without spaces around and the stars of bold type."""
    return [cell.strip().strip('*') for cell in line.strip().strip('|').split('|')]
