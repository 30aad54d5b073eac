"""Data, weights and states that are not there or cannot be used: named with their keys before anything is moved or written."""
import pytest
from tiny import forked_command, make_photos, options, parsed, write

import ibmd_basicsr.archs
import ibmd_basicsr.losses
import ibmd_basicsr.models  # noqa: F401  (registration)
from ibmd_basicsr.data.lmdb_writer import create_lmdb
from ibmd_basicsr.models.option_rules import prepare_options
from ibmd_basicsr.models.run_inputs import check_inputs, missing_inputs
from ibmd_basicsr.utils import image_sets
from ibmd_basicsr.utils.errors import InputError


def line_of(opt) -> str:
    """Return what is said of the inputs of a run, empty if they can be used."""
    opt = parsed(opt)
    prepare_options(opt, auto_gpu=False)
    try:
        check_inputs(opt)
    except InputError as error:
        return str(error)
    return ''


@pytest.mark.parametrize('model', ['BridgeModel', 'IBMDModel', 'SRModel'])
def test_nothing_is_said_of_inputs_that_are_there(world, model):
    opt = parsed(options(world, model))
    before = repr(opt['datasets'])
    check_inputs(opt)
    assert repr(opt['datasets']) == before


@pytest.mark.parametrize('module, changes, key, reason', [
    ('train', {'datasets__train__dataroot_gt': 'tpyo'}, 'datasets.train.dataroot_gt', 'no such image folder'),
    ('train', {'teacher__weights': 'tpyo.pth'}, 'teacher.weights', 'no such file'),
    ('test', {'datasets': {'test_1': {'name': 'photos', 'type': 'DegradedImageDataset', 'dataroot_lq': 'tpyo'}}, 'val__metrics': None},
     'datasets.test_1.dataroot_lq', 'no such image folder')])
def test_a_start_that_fails_moves_nothing(world, module, changes, key, reason):
    """One line; what an earlier run of this name has left stays where it is."""
    opt = options(world, 'IBMDModel' if module == 'train' else 'BridgeModel', **changes)
    if module == 'test':
        del opt['train'], opt['logger']
    place = world / ('experiments' if module == 'train' else 'results')
    (place / 'tiny').mkdir(parents=True)
    (place / 'tiny' / 'result').write_text('precious')
    file = write(world, opt)
    result = forked_command('-opt', file, module=module)
    path = world / ('tpyo.pth' if 'weights' in key else 'tpyo')
    assert (result.returncode, result.stderr) == (2, f'error: {file}: {key}: {path}: {reason}.\n')
    assert 'network_g' not in result.stdout
    assert [path.name for path in place.iterdir()] == ['tiny'] and (place / 'tiny' / 'result').read_text() == 'precious'


@pytest.mark.parametrize('model, changes, key', [
    ('BridgeModel', {'datasets__val__dataroot_gt': '{0}'}, 'datasets.val.dataroot_gt: {0}: no such image folder.'),
    ('BridgeModel', {'datasets__val__dataroot_gt': '{0}.lmdb', 'datasets__val__io_backend': {'type': 'lmdb'}},
     'datasets.val.dataroot_gt: {0}.lmdb: no such image LMDB.'),
    ('BridgeModel', {'datasets__train__meta_info_file': '{0}'}, 'datasets.train.meta_info_file: {0}: no such file.'),
    ('BridgeModel', {'datasets__train__label_file': '{0}', 'datasets__val__label_file': '{1}/labels.txt', 'network_g__num_classes': 3},
     'datasets.train.label_file: {0}: no such file.'),
    ('BridgeModel', {'path__pretrain_network_g': '{0}'}, 'path.pretrain_network_g: {0}: no such file.'),
    ('BridgeModel', {'path__resume_state': '{0}'}, 'path.resume_state: {0}: no such file.'),
    ('SRModel', {'path__pretrain_network_g': '{0}'}, 'path.pretrain_network_g: {0}: no such file.'),
    ('SRModel', {'val__metrics__lpips': {'type': 'calculate_lpips', 'weights': '{0}'}}, 'val.metrics.lpips: {0}: no such weight file.'),
    ('IBMDModel', {'datasets__train__return_gt': True, 'datasets__train__gt_size': 32, 'train__perceptual_opt':
                   {'type': 'LPIPSLoss', 'net': 'vgg', 'weights': '{0}', 'loss_weight': 1}},
     'train.perceptual_opt.weights: {0}: no such file.'),
    ('BridgeModel', {'datasets__val__gt_size': 'x', 'datasets__val__type': 'PairedImageDataset', 'datasets__val__dataroot_lq': '{0}'},
     'datasets.val.dataroot_lq: {0}: no such image folder.'),
    ('BridgeModel', {'datasets__train__dataroot_gt': '{1}/empty'}, 'datasets.train: {1}/empty: holds no image (.png'),
    ('BridgeModel', {'datasets__train__gt_size': 18}, 'datasets.train.gt_size must be a positive multiple of 4, got 18.'),
    ('BridgeModel', {'datasets__val__dataroot_gt': '{1}/broken.lmdb', 'datasets__val__io_backend': {'type': 'lmdb'}},
     'datasets.val: {1}/broken.lmdb: not an LMDB (data.mdb is missing).'),
    ('SRModel', {'datasets__val__type': 'PairedImageDataset', 'datasets__val__dataroot_lq': '{1}/one',
                 'datasets__val__dataroot_gt': '{1}/photos'}, 'datasets.val: '),
])
def test_each_key_is_named(world, model, changes, key):
    (world / 'empty').mkdir()
    (world / 'broken.lmdb').mkdir()
    (world / 'labels.txt').touch()
    make_photos(world / 'one', count=1)
    typo = world / 'tpyo'

    def fill(value):
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        return value.format(typo, world) if isinstance(value, str) else value
    line = line_of(options(world, model, **fill(changes)))
    assert line.startswith(key.format(typo, world)) and '\n' not in line


def test_all_that_is_missing_is_told_at_once(world):
    opt = options(world, 'IBMDModel', datasets__val__dataroot_gt='a', teacher__weights='b', val__metrics={})
    assert line_of(opt).splitlines()[0] == '2 inputs that cannot be used:' and len(line_of(opt).splitlines()) == 3


def test_a_resumed_run_needs_its_own_files_alone(world):
    """Networks that it started from may be gone; data and teacher are read again."""
    opt = options(world, 'IBMDModel', path__pretrain_network_g='gone', path__resume_state='gone')
    opt['path'] |= {'training_states': str(world / 'states'), 'ignore_resume_networks': []}
    opt = parsed(opt) | {'auto_resume': True}
    assert [line.partition(':')[0] for line in missing_inputs(opt)] == ['path.resume_state']
    (world / 'states').mkdir()
    (world / 'states' / '4.state').touch()
    assert missing_inputs(opt) == []
    opt['path']['ignore_resume_networks'] = ['network_g']
    (world / 'teacher.pth').unlink()
    assert [line.partition(':')[0] for line in missing_inputs(opt)] == ['path.pretrain_network_g', 'teacher.weights']
    opt['auto_resume'] = False
    assert len(missing_inputs(opt)) == 3


@pytest.mark.parametrize('packed', [False, True])
def test_small_images_are_named_at_the_start(world, packed, monkeypatch):
    """A crop of the seventh photograph of 13 may be drawn after an hour."""
    monkeypatch.setattr(image_sets, 'HEADERS', 3)
    make_photos(world / 'photos' / 'a', count=2, size=(12, 20))
    changes = {}
    if packed:
        create_lmdb(world / 'photos', world / 'photos.lmdb', progress=False)
        changes = {'datasets__train__dataroot_gt': str(world / 'photos.lmdb'), 'datasets__train__io_backend': {'type': 'lmdb'}}
    line = line_of(options(world, **changes))
    name = world / ('photos.lmdb/a/photo_0' if packed else 'photos/a/photo_0.png')  # of five images every second one is looked at
    assert line == f'datasets.train.gt_size: 1 of 5 images are smaller than the crop of 16 pixels: {name} (20x12).'
    monkeypatch.undo()
    assert 'gt_size: 2 of 5 images' in line_of(options(world, **changes))
    assert line_of(options(world, datasets__train__gt_size=12, **changes)) == ''


def test_small_images_of_other_kinds(world):
    """Corrupted photographs are cut out by gt_size / scale; test images need one pixel of the input; what has no size is not judged."""
    make_photos(world / 'lq', count=1, size=(3, 9))
    (world / 'lq' / 'text.png').write_text('no image')
    opt = options(world, 'IBMDModel')
    del opt['datasets']['train']['degradation'], opt['datasets']['train']['dataroot_gt']
    opt['datasets']['train']['scale'] = 4  # as the host's parser does
    opt['datasets']['train']['dataroot_lq'] = opt['datasets']['val']['dataroot_gt'] = str(world / 'lq')
    assert line_of(opt).splitlines() == [
        '2 inputs that cannot be used:',
        f'  datasets.train.gt_size: 1 of 2 images are smaller than the crop of 4 pixels: {world}/lq/photo_0.png (9x3).',
        f'  datasets.val: 1 of 2 images are smaller than 4 pixels: {world}/lq/photo_0.png (9x3).']


@pytest.mark.parametrize('packed', [False, True])
def test_small_images_among_pairs(world, packed):
    """BasicSR's own data set: a traceback in the middle of a training."""
    make_photos(world / 'lq', count=3, size=(10, 12))
    make_photos(world / 'lq', count=1, size=(3, 12))
    roots = [world / 'photos', world / 'lq']
    if packed:
        roots = [root.with_suffix('.lmdb') for root in roots]
        for root in roots:
            create_lmdb(root.with_suffix(''), root, progress=False)
    pairs = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(roots[0]), 'dataroot_lq': str(roots[1]), 'scale': 4,
             'io_backend': {'type': 'lmdb' if packed else 'disk'}, 'gt_size': 16, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1}
    name = roots[1] / ('photo_0' if packed else 'photo_0.png')
    assert line_of(options(world, datasets__train=pairs)) == (
        f'datasets.train.gt_size: 1 of 3 images are smaller than the crop of 4 pixels: {name} (12x3).')
    assert line_of(options(world, datasets__train=pairs | {'gt_size': 12})) == ''
