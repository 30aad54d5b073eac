"""Recipes: which weights an option file, a name or a card mean, the same for all commands."""
import cv2
import pytest
import safetensors
import torch
import yaml
from tiny import REPOSITORY, make_photos, make_teacher, options, write
from tiny_zoo import STUDENT, add_network

from ibmd_basicsr.cli import export, restore
from ibmd_basicsr.models.recipes import find_weights, recipe_from_options, recipe_of_weights, recipes_in
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise


def make(root, training: bool, **changes):
    """Write a file with two unlike sets of weights, and the option file of a training or of a test that names ``params``."""
    both = {}
    for seed, key in enumerate(('params', 'params_ema')):
        make_teacher(root, seed, **STUDENT)
        both[key] = torch.load(root / 'teacher.pth', weights_only=True)['params_ema']
    torch.save(both, root / 'both.pth')
    opt = options(root, path={'pretrain_network_g': 'both.pth', 'param_key_g': 'params'}, network_g=dict(STUDENT),
                  val__sampler={'type': 'one_step'}, **changes)
    if not training:
        del opt['train']
    return write(root, opt), both


@pytest.mark.parametrize('training, key', [(False, 'params'), (True, 'params_ema')])
def test_export_ships_the_weights_that_restore_runs(training, key, tmp_path):
    """A test's param_key_g is about whatever weights it is given; a training's is about those that it starts from."""
    file, both = make(tmp_path, training)
    given = [str(tmp_path / 'both.pth'), '-opt', str(file), '-o', str(tmp_path / 'a.safetensors')]
    assert export.main(given) == 0
    with safetensors.safe_open(tmp_path / 'a.safetensors', 'pt') as exported:
        assert all(torch.equal(exported.get_tensor(name), value) for name, value in both[key].items())

    make_photos(tmp_path / 'photos', 1, (8, 8))
    photo = tmp_path / 'photos/photo_0.png'
    assert restore.main([str(photo), '-o', str(tmp_path / 'out.png'), '-opt', str(file), '--weights', given[0], '--device', 'cpu']) == 0
    lq = torch.from_numpy(cv2.imread(str(photo))[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    made = {key: recipe_from_options(file, given[0], key).build()(lq, PerImageNoise.for_images(0, ['photo_0'])) for key in both}
    restored = torch.from_numpy(cv2.imread(str(tmp_path / 'out.png'))[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    other, = set(both) - {key}
    assert (restored - made[key]).abs().max() < 0.51 / 255 < (restored - made[other]).abs().max()


def test_weights_that_the_option_file_names(tmp_path):
    file, _ = make(tmp_path, training=True)
    recipe = recipe_from_options(file)
    assert recipe.weights == tmp_path / 'both.pth' and recipe.param_key == 'params'  # what the training starts from
    assert recipe_from_options(file, param_key='params_ema').param_key == 'params_ema'
    assert (recipe.name, recipe.title, recipe.task, recipe.scale, recipe.size) == ('both', 'tiny', 'sr4x', 4, 64)


@pytest.mark.parametrize('changes, message', [
    ({'path': {}}, 'path.pretrain_network_g names no weights, and no others are given.'),
    ({'scale': None}, 'scale must be an integer from 1 to 64, got None.'),
    ({'network_g': None, 'bridge': 'I2SB'}, 'has no block bridge and no block network_g; options of a BridgeModel or IBMDModel'),
])
def test_option_files_that_are_no_recipe(changes, message, tmp_path):
    file = write(tmp_path, options(tmp_path, **changes))
    with pytest.raises(OptionError) as error:
        recipe_from_options(file)
    assert str(error.value).startswith(f'{file}: {message}')


def test_names_paths_and_cards(tmp_path):
    folders = tmp_path / 'one/weights', tmp_path / 'two/weights'
    for folder in folders:
        folder.parent.mkdir()
        add_network(folder.parent, 'jpeg_student')
    add_network(tmp_path / 'two', 'edges_student', degradation={'type': 'edges'})
    assert find_weights('jpeg_student', folders) == find_weights('jpeg', folders) == folders[0] / 'jpeg_student.pth'
    assert find_weights('edges', folders) == folders[1] / 'edges_student.pth'
    assert find_weights(str(folders[1] / 'jpeg_student.pth'), folders) == folders[1] / 'jpeg_student.pth'
    with pytest.raises(OptionError, match=r"^jpg_student: no such network, did you mean 'jpeg_student'\? Known: edges_student, jpeg_st"):
        find_weights('jpg_student', folders)
    recipe = recipe_of_weights(find_weights('edges', folders))
    assert (recipe.title, recipe.task) == ('the edges_student', 'edges') and recipe == recipes_in(folders[1])['edges_student']
    (folders[0] / 'stranger.pth').touch()
    with pytest.raises(OptionError, match=r'stranger.pth: no cards.yml beside it names its options'):
        recipe_of_weights(folders[0] / 'stranger.pth')


def test_weights_by_a_relative_path(tmp_path, monkeypatch):
    add_network(tmp_path, 'jpeg_student')
    monkeypatch.chdir(tmp_path / 'weights')
    assert recipe_of_weights(find_weights('jpeg_student.pth')).build().calls == 1


@pytest.mark.parametrize('bridge, degradation, masked', [
    ({'hole': 'noise'}, {'type': 'jpeg'}, True), ({'hole': 'keep'}, {'type': 'jpeg'}, False), ({}, {'type': 'inpaint'}, True)])
def test_what_needs_a_mask(bridge, degradation, masked, tmp_path):
    opt = options(tmp_path, bridge={'type': 'I2SB'} | bridge, scale=1, datasets={'test': {'degradation': degradation}})
    recipe = recipe_from_options(write(tmp_path, opt), 'x.pth')
    assert recipe.masked == masked and recipe.takes == ('a mask' if masked else '')


@pytest.mark.parametrize('sampler', [{'steps': 4}, {'steps': 4, 'trained_steps': None}, {'trained_steps': 4}])
def test_fewer_steps_keep_to_the_times_of_the_training(sampler, tmp_path):
    add_network(tmp_path, 'four', val={'sampler': {'type': 'few_step', **sampler}})
    four = recipes_in(tmp_path / 'weights')['four']
    three = four.with_steps(3)
    assert (four.steps, three.steps) == (4, 3)
    assert set(three.build().grid.tolist()) < set(four.build().grid.tolist())
    with pytest.raises(OptionError, match=r'^5 steps with four: .*1..4, the steps that the student was trained with, got 5'):
        four.with_steps(5)


@pytest.mark.parametrize('sampler, calls', [({'type': 'heun', 'steps': 8}, 8), ({'type': 'heun', 'churn': 0}, 101),
                                            ({'type': 'dbim'}, 100)])
def test_steps_are_network_calls(sampler, calls, tmp_path):
    """What the list of networks says is what --steps takes."""
    opt = options(tmp_path, bridge={'type': 'VP'}, val={'sampler': sampler})
    recipe = recipe_from_options(write(tmp_path, opt), 'x.pth')
    assert recipe.steps == calls == recipe.with_steps(calls).steps and not recipe.is_student


def test_every_shipped_network_is_a_recipe():
    recipes = recipes_in(REPOSITORY / 'weights')
    cards = yaml.safe_load((REPOSITORY / 'weights/cards.yml').read_text(encoding='utf-8'))['cards']
    assert set(recipes) == {name for name in cards if 'nano' in name}
    assert all(recipe.weights.is_file() and recipe.title == cards[name]['title'] for name, recipe in recipes.items())
    assert {name for name, recipe in recipes.items() if recipe.masked} == {'inpaint_center_nano_teacher', 'inpaint_center_nano_student'}
