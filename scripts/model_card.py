"""Write a card for each file of weights/: what it is, how it was made, what it reached, and what it cannot do.

    python scripts/model_card.py            # writes weights/cards/NAME.md
    python scripts/model_card.py --check    # writes nothing, names the cards that are out of date

Facts that nobody can compute come from weights/cards.yml; size, sha256 and parameters from the file, the network from its option file, the
results from the table in docs/, with the sha256 of what was measured. The cards begin with the block that the Hugging Face Hub reads: to
publish a file there, put its card beside it as README.md.

exit codes: 0 done, or nothing out of date; 1 (--check) cards out of date; 2 cards.yml, a file, an option file and a table contradict
each other.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from ibmd_basicsr.checkpoints.state_dict import load_params
from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.compat.options import read_option_file
from ibmd_basicsr.reporting.documents import PublishedTable, read_tables
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.option_check import check_keys

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN = 'not recorded'
REQUIRED = ('sha256', 'title', 'task', 'options', 'results')
FACTS = {'data': 'training data', 'date': 'date', 'machine': 'machine', 'duration': 'duration', 'seeds': 'seeds'}
OPTIONAL = (*FACTS, 'tags', 'training', 'training_note', 'training_logs', 'exported_from', 'limits', 'licence')


@report_errors('interrupted; cards may be out of date (--check).')
def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit code 1 if a card is out of date')
    args = parser.parse_args()
    folder = ROOT / 'weights' / 'cards'
    cards = make_cards()
    stale = [name for name, text in cards.items() if not (folder / name).is_file() or (folder / name).read_text(encoding='utf-8') != text]
    orphans = sorted(path.name for path in folder.glob('*.md') if path.name not in cards)
    for name in orphans:
        print(f'weights/cards/{name}: there is no such weight file, delete the card.', file=sys.stderr)
    if args.check:
        for name in stale:
            print(f'weights/cards/{name}: out of date, run scripts/model_card.py.', file=sys.stderr)
        return 1 if stale or orphans else 0
    folder.mkdir(exist_ok=True)
    for name in stale:
        (folder / name).write_text(cards[name], encoding='utf-8')
        print(f'weights/cards/{name}: written')
    return 0


def make_cards() -> dict[str, str]:
    """Return the text of each card by its file name, for all of weights/*.pth.

    Raises:
        OptionError: cards.yml lacks a file, names one that is not there or says of one what is not so.
        CheckpointError, OSError: a file cannot be read.
    """
    content = read_option_file(ROOT / 'weights' / 'cards.yml')
    check_keys('', content, ('shared',), ('cards',))
    files = {path.stem: path for path in sorted((ROOT / 'weights').glob('*.pth'))}
    check_keys('cards', content['cards'], (), tuple(files))
    for name, facts in content['cards'].items():
        check_keys(f'cards.{name}', facts, OPTIONAL, REQUIRED)
    return {f'{name}.md': make_card(path, content['cards'][name]) for name, path in files.items()}


def make_card(path: Path, facts: dict[str, Any]) -> str:
    """Return the card of one file."""
    digest = file_digest(path)
    if not digest.startswith(str(facts['sha256'])):
        raise OptionError(f'cards.{path.stem}.sha256: weights/{path.name} has {digest[:12]}, got {facts["sha256"]}. '
                          'Look through the entry, then write the new digits.')
    opt = read_option_file(ROOT / facts['options'])
    if opt['path']['pretrain_network_g'] != f'weights/{path.name}':
        raise OptionError(f'cards.{path.stem}.options: {facts["options"]} reads {opt["path"]["pretrain_network_g"]}.')
    params = load_params(path, opt['path']['param_key_g']).values()
    numbers = sorted({str(value.dtype).removeprefix('torch.') for value in params})
    parts = [
        header(facts, opt),
        '<!-- Made by scripts/model_card.py from weights/cards.yml, the file, its options and the tables in docs/. Do not edit. -->',
        f'# {facts["title"]}\n`{path.name}`: {facts["task"]}.',
        '## File\n' + table({
            'sha256': f'`{digest}`', 'size': f'{path.stat().st_size:,} bytes',
            'parameters': f'{sum(value.numel() for value in params):,}, stored as {", ".join(numbers)}; they compute in float32',
            'key': f'`{opt["path"]["param_key_g"]}`', 'licence': facts.get('licence', UNKNOWN)}),
        use(facts['options'], opt),
        training(facts),
        results(path, digest, facts),
        '## Limits\n' + '\n'.join(f'* {limit}' for limit in facts.get('limits', [UNKNOWN])),
    ]
    return '\n\n'.join(parts) + '\n'


def header(facts: dict[str, Any], opt: dict[str, Any]) -> str:
    """Return the block of a card that the Hugging Face Hub reads."""
    block = {'license': facts['licence'].lower()} if 'licence' in facts else {}
    block |= {'library_name': 'ibmd_basicsr', 'pipeline_tag': 'image-to-image',
              'tags': ['basicsr', 'image-restoration', *(['diffusion-bridge'] if 'bridge' in opt else []), *facts.get('tags', [])]}
    return f'---\n{yaml.safe_dump(block, sort_keys=False)}---'


def use(file: str, opt: dict[str, Any]) -> str:
    """Return the section with the command that tests the file, and the options that it needs in files of one's own."""
    blocks = {key: opt[key] for key in ('scale', 'bridge', 'network_g', 'path') if key in opt}
    if 'sampler' in opt['val']:  # baselines have neither bridge nor sampler
        blocks['val'] = {'sampler': opt['val']['sampler']}
    return (f'## Use\n```\npython -m ibmd_basicsr.test -opt {file}\n```\nOptions that belong to the file (of {link(file)}):\n'
            f'```yaml\n{yaml.safe_dump(blocks, sort_keys=False, default_flow_style=None, width=120)}```')


def training(facts: dict[str, Any]) -> str:
    """Return the section on how the file was made."""
    rows = {title: facts.get(key, UNKNOWN) for key, title in FACTS.items()}
    rows['logs'] = ', '.join(map(link, facts.get('training_logs', []))) or UNKNOWN
    commands = '\n'.join(facts.get('training', []))
    note = f'\n\n{facts["training_note"].strip()}' if 'training_note' in facts else ''
    export = '\n\nThen `scripts/export_weights.py`: EMA weights alone, in half precision.'
    return f'## Training\n```\n{commands}\n```\n{table(rows)}{note}{export}' if commands else f'## Training\n{table(rows)}{note}'


def results(path: Path, digest: str, facts: dict[str, Any]) -> str:
    """Return the section with the table of the comparison, and whether this very file was measured.

    Raises:
        OptionError: no such table or rows, or they are those of another file.
    """
    document, folder, role = facts['results']
    published = read_tables((ROOT / document).read_text(encoding='utf-8')).get(folder)
    rows = [row for row in published.weights if row.split('@')[0] == role] if published else []
    if not rows:
        raise OptionError(f'cards.{path.stem}.results: {document} has no rows {role} of {folder}.')
    measured, start = published.weights[rows[0]]
    if digest.startswith(start):
        origin = 'measured on this file'
    elif measured == facts.get('exported_from'):
        origin = f'measured on `{measured}` (sha256 {start}...), the checkpoint in float32 that this file is the half-precision export of'
    else:
        raise OptionError(f'cards.{path.stem}.results: {document} measured {measured} (sha256 {start}...), not this file '
                          f'(sha256 {digest[:len(start)]}...). Run the comparison and publish it, or name what it was exported_from.')
    names = ', '.join(f'`{row}`' for row in rows)
    return f'## Results\n{names}: {origin}. From {link(document)}, "{published.heading}".\n\n{published.markdown}\n\n{made_by(published)}'


def made_by(published: PublishedTable) -> str:
    """Return what the table's columns are, and the command that made it."""
    return published.explanation + (f'\n\n`{published.command}`, {published.date}' if published.command else '')


def table(rows: dict[str, Any]) -> str:
    """Return a Markdown table of two columns."""
    return '| | |\n|---|---|\n' + '\n'.join(f'| {name} | {value} |' for name, value in rows.items())


def link(file: str) -> str:
    """Return a link to a file of the repository as it is seen from weights/cards."""
    return f'[{file}]({os.path.relpath(file, "weights/cards")})'


if __name__ == '__main__':
    sys.exit(main())
