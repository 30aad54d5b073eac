"""Weights that were made for another task are told, whatever their file is called, and nothing is said of others."""
import shutil

import pytest
import yaml
from helpers import build
from tiny import REPOSITORY, make_photos, make_teacher
from tiny_zoo import JPEG, add_network

from ibmd_basicsr.cli import export, restore
from ibmd_basicsr.models import known_weights
from ibmd_basicsr.models.known_weights import known_recipe, misuse
from ibmd_basicsr.utils.files import file_digest

JPEG_WEIGHTS = REPOSITORY / 'weights/jpeg10_nano_student.pth'


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo with a card for JPEG, whose weights also lie outside as mine.pth, and one for x4; its folder is where weights are known."""
    zoo = tmp_path / 'zoo'
    zoo.mkdir()
    add_network(zoo, 'jpeg_tiny', degradation=JPEG | {'quality': 10})
    add_network(zoo, 'sr_tiny', degradation={'type': 'sr', 'scale': 4}, scale=4)
    cards = yaml.safe_load((zoo / 'weights/cards.yml').read_text())
    for name, card in cards['cards'].items():
        card['sha256'] = file_digest(zoo / f'weights/{name}.pth')[:12]
    (zoo / 'weights/cards.yml').write_text(yaml.safe_dump(cards))
    shutil.copy(zoo / 'weights/jpeg_tiny.pth', tmp_path / 'mine.pth')
    monkeypatch.setattr(known_weights.known_recipe, '__defaults__', ((zoo / 'weights',),))
    return zoo


@pytest.mark.parametrize('task, scale, told', [
    ('jpeg', 1, False), ('', 1, False), ('sr4x', 4, True), ('inpaint', 1, True), ('jpeg', 4, True), ('', 4, True)])
def test_another_task_or_scale_is_told(task, scale, told, zoo, tmp_path):
    line = misuse(tmp_path / 'mine.pth', task, scale, 'x.yml')
    assert line == (f'{tmp_path}/mine.pth: these weights (which are jpeg_tiny) were made for jpeg at scale 1, but x.yml is for '
                    f'{task or "a task"} at scale {scale}.' if told else None)


def test_weights_of_no_card_are_not_known_and_those_of_another_size_not_read(zoo, tmp_path, monkeypatch):
    content = bytearray((tmp_path / 'mine.pth').read_bytes())
    content[-1] ^= 1
    (tmp_path / 'changed.pth').write_bytes(content)
    assert known_recipe(tmp_path / 'changed.pth') is None and known_recipe(tmp_path / 'missing.pth') is None
    (tmp_path / 'longer.pth').write_bytes(content + b'0')
    monkeypatch.setattr(known_weights, 'file_digest', None)  # is not called
    assert known_recipe(tmp_path / 'longer.pth') is None


@pytest.mark.parametrize('text', ['cards: 3\n', 'cards: {jpeg_tiny: {options: nowhere.yml, sha256: DIGEST}}\n', '- [\n',
                                  "cards: {jpeg_tiny: {options: nowhere.yml, sha256: ''}}\n"])
def test_damaged_cards_end_nothing(text, zoo, tmp_path):
    (zoo / 'weights/cards.yml').write_text(text.replace('DIGEST', file_digest(tmp_path / 'mine.pth')))
    assert known_recipe(tmp_path / 'mine.pth') is None


def test_the_shipped_weights_are_known_and_fit_their_own_options():
    cards = yaml.safe_load((REPOSITORY / 'weights/cards.yml').read_text())['cards']
    known = {name: known_recipe(REPOSITORY / f'weights/{name}.pth') for name in cards}
    assert {name for name, recipe in known.items() if recipe is None} == {'sr4x_esrgan', 'sr4x_msrresnet', 'jpeg10_direct'}
    assert all(recipe.name == name for name, recipe in known.items() if recipe is not None)
    assert misuse(JPEG_WEIGHTS, 'sr4x', 4, 'x.yml') and misuse(JPEG_WEIGHTS, 'jpeg', 1, 'x.yml') is None


X4 = f'{REPOSITORY}/options/test/sr4x_ibmd.yml'
WARNING = f'warning: {JPEG_WEIGHTS}: these weights were made for jpeg at scale 1, but {X4} is for sr4x at scale 4.'


@pytest.mark.parametrize('file, lines', [(X4, [WARNING]), (X4.replace('sr4x', 'jpeg10'), [])])
def test_restore_and_export_warn(file, lines, tmp_path, capsys):
    make_photos(tmp_path / 'photos', 1, (8, 8))
    opt, where = ['-opt', file], [str(tmp_path / 'photos'), '-o', str(tmp_path / 'out')]
    assert restore.main([*where, *opt, '--weights', str(JPEG_WEIGHTS), '--device', 'cpu']) == 0
    assert capsys.readouterr().err.splitlines() == lines
    assert export.main([str(JPEG_WEIGHTS), *opt, '-o', str(tmp_path / 'a.safetensors')]) == 0
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize('task', ['jpeg', 'sr'])
def test_a_training_warns_of_its_teacher(task, tmp_path, monkeypatch):
    make_teacher(tmp_path)
    degradation = JPEG | {'quality': 10} if task == 'jpeg' else {'type': 'sr', 'scale': 4}
    (tmp_path / 'zoo').mkdir()
    add_network(tmp_path / 'zoo', 'known', degradation=degradation, scale=1 if task == 'jpeg' else 4)
    folder = tmp_path / 'zoo/weights'
    shutil.copy(tmp_path / 'teacher.pth', folder / 'known.pth')
    card = {'options': 'options/known.yml', 'sha256': file_digest(tmp_path / 'teacher.pth')}
    (folder / 'cards.yml').write_text(yaml.safe_dump({'cards': {'known': card}}))
    monkeypatch.setattr(known_weights.known_recipe, '__defaults__', ((folder,),))
    told = []
    monkeypatch.setattr('logging.Logger.warning', lambda self, text, *values: told.append(text))
    build(tmp_path, 'IBMDModel')
    assert told == ([f'teacher.weights: {tmp_path}/teacher.pth: these weights (which are known) were made for jpeg at scale 1, but this '
                     'training is for sr4x at scale 4.'] if task == 'jpeg' else [])
