"""weights/cards: a card for each file, up to date with file, options and tables; scripts/model_card.py refuses what contradicts itself."""
import hashlib
import re
import shutil
import sys

import pytest
import torch
import yaml
from tiny import REPOSITORY, load_script

model_card = load_script('model_card')
FILES = sorted((REPOSITORY / 'weights').glob('*.pth'))
FACTS = yaml.safe_load((REPOSITORY / 'weights/cards.yml').read_text(encoding='utf-8'))['cards']


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, 'argv', ['model_card.py', *arguments])
    return model_card.main()


def test_cards_are_up_to_date(monkeypatch, capsys):
    assert run(monkeypatch, '--check') == 0, capsys.readouterr().err


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_file_has_a_card_with_its_digest_and_the_published_results(path):
    card = (path.parent / 'cards' / f'{path.stem}.md').read_text(encoding='utf-8')
    assert f'`{hashlib.sha256(path.read_bytes()).hexdigest()}`' in card
    document, folder, role = FACTS[path.stem]['results']
    text = (REPOSITORY / document).read_text(encoding='utf-8')
    lines = [line for line in text.partition(f'<!-- table: {folder} -->')[2].partition('<!-- end of table -->')[0].splitlines()
             if line.startswith('|')]
    assert [line for line in card.partition('## Results')[2].splitlines() if line.startswith('|')] == lines
    assert any(line.startswith(f'| {role}') for line in lines)
    for target in re.findall(r'\]\(([^)#]+)\)', card):
        assert (path.parent / 'cards' / target).exists(), target


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_hub_reads_the_head_of_a_card(path):
    _, head, _ = (path.parent / 'cards' / f'{path.stem}.md').read_text(encoding='utf-8').split('---\n', 2)
    assert yaml.safe_load(head).items() >= {'license': 'apache-2.0', 'pipeline_tag': 'image-to-image'}.items()


@pytest.mark.parametrize('name', FACTS)
def test_what_the_facts_name_is_there(name):
    commands = FACTS[name]['training']
    options = [re.search(r'-opt (\S+)', command)[1] for command in commands if '-opt' in command]
    scripts = [command.split()[1] for command in commands if '-opt' not in command]
    for file in (*options, *scripts, *FACTS[name].get('training_logs', [])):
        assert (REPOSITORY / file).is_file(), file
    if 'exported_from' in FACTS[name]:
        assert FACTS[name]['exported_from'].split('/')[1] == yaml.safe_load((REPOSITORY / options[-1]).read_text())['name']


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One weight file with everything that its card needs."""
    monkeypatch.setattr(model_card, 'ROOT', tmp_path)
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'docs').mkdir()
    torch.save({'params_ema': {'a': torch.zeros(1000, 3).half(), 'b': torch.zeros(5).half()}}, tmp_path / 'weights/tiny.pth')
    digest = hashlib.sha256((tmp_path / 'weights/tiny.pth').read_bytes()).hexdigest()
    (tmp_path / 'tiny.yml').write_text(yaml.safe_dump({
        'scale': 1, 'bridge': {'type': 'I2SB'}, 'network_g': {'type': 'ADMUNet'}, 'val': {'sampler': {'type': 'one_step'}},
        'path': {'pretrain_network_g': 'weights/tiny.pth', 'param_key_g': 'params_ema'}}))
    (tmp_path / 'docs/results.md').write_text(
        '## Tiny task\n<!-- table: results/tiny -->\n| restorer | LPIPS |\n| --- | --- |\n| student@1 | 0.5 |\n\nMeans over 2 images.\n\n'
        f'* `compare`, 2026-01-02\n* student@1: `weights/tiny.pth` (sha256 {digest[:12]}...), 3,005 parameters\n<!-- end of table -->\n')
    write_facts(tmp_path, sha256=digest[:12])
    return tmp_path


def write_facts(world, **changes):
    facts = {'title': 'Tiny', 'task': 'nothing', 'options': 'tiny.yml', 'results': ['docs/results.md', 'results/tiny', 'student']}
    file = world / 'weights/cards.yml'
    old = yaml.safe_load(file.read_text())['cards']['tiny'] if file.exists() else facts
    file.write_text(yaml.safe_dump({'cards': {'tiny': old | changes}}))


def test_a_card_and_its_check(world, monkeypatch, capsys):
    assert run(monkeypatch, '--check') == 1
    assert 'weights/cards/tiny.md: out of date, run scripts/model_card.py.' in capsys.readouterr().err
    assert run(monkeypatch) == 0 and run(monkeypatch, '--check') == 0
    card = (world / 'weights/cards/tiny.md').read_text()
    assert '| parameters | 3,005, stored as float16; they compute in float32 |' in card
    assert '`student@1`: measured on this file.' in card and '| student@1 | 0.5 |' in card
    assert '| machine | not recorded |' in card and '| licence | not recorded |' in card and '* not recorded' in card
    document = world / 'docs/results.md'
    document.write_text(document.read_text().replace('| 0.5 |', '| 0.4 |'))
    assert run(monkeypatch, '--check') == 1
    (world / 'weights/cards/gone.md').write_text('')
    assert run(monkeypatch) == 0 and run(monkeypatch, '--check') == 1
    assert 'weights/cards/gone.md: there is no such weight file, delete the card.' in capsys.readouterr().err


def test_results_of_the_checkpoint_that_the_file_was_exported_from(world, monkeypatch, capsys):
    document = world / 'docs/results.md'
    document.write_text(re.sub(r'`weights/tiny.pth` \(sha256 \w+', '`experiments/tiny.pth` (sha256 0123456789ab', document.read_text()))
    assert run(monkeypatch) == 2
    assert 'measured experiments/tiny.pth (sha256 0123456789ab...), not this file' in capsys.readouterr().err
    write_facts(world, exported_from='experiments/tiny.pth')
    assert run(monkeypatch) == 0
    assert 'measured on `experiments/tiny.pth` (sha256 0123456789ab...), the checkpoint' in (world / 'weights/cards/tiny.md').read_text()


@pytest.mark.parametrize('changes, message', [
    ({'sha256': '0123456789ab'}, 'cards.tiny.sha256: weights/tiny.pth has'),
    ({'license': 'MIT'}, "cards.tiny: unknown key 'license', did you mean 'licence'?"),
    ({'results': ['docs/results.md', 'results/other', 'student']}, 'docs/results.md has no rows student of results/other'),
    ({'results': ['docs/results.md', 'results/tiny', 'teacher']}, 'docs/results.md has no rows teacher of results/tiny'),
])
def test_contradictions_are_refused(changes, message, world, monkeypatch, capsys):
    write_facts(world, **changes)
    assert run(monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert not (world / 'weights/cards').exists()


def test_a_file_without_facts_and_options_of_another_file_are_refused(world, monkeypatch, capsys):
    shutil.copy(world / 'weights/tiny.pth', world / 'weights/new.pth')
    assert run(monkeypatch) == 2
    assert "cards: missing 'new'." in capsys.readouterr().err
    (world / 'weights/new.pth').unlink()
    options = world / 'tiny.yml'
    options.write_text(options.read_text().replace('weights/tiny.pth', 'weights/old.pth'))
    assert run(monkeypatch) == 2
    assert 'cards.tiny.options: tiny.yml reads weights/old.pth.' in capsys.readouterr().err
