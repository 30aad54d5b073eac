"""Whole runs of every task: distillation from corrupted images alone, holes, labels, students of several steps, resume, processes."""
import copy
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers import assert_equal, contents
from tiny import NETWORK, command, forked_command, make_teacher, options, parsed, write

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.cli import pipelines

CONDITIONAL = NETWORK | {'cond_channels': 3}
BRIDGES = {
    'noise': {'type': 'I2SB', 'beta_max': 1.0, 'hole': 'noise'},
    'noise_ode': {'type': 'I2SB', 'beta_max': 1.0, 'hole': 'noise', 'ot_ode': True},
    'endpoint': {'type': 'I2SB_DBIM', 'conditional': True},
    'vp': {'type': 'VP', 'conditional': True},
}


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    """Return run(options, *arguments): the train or test command in this process, which saves the import of torch."""
    def run(opt, *arguments):
        monkeypatch.chdir(tmp_path)
        is_train = 'train' in opt
        monkeypatch.setattr(sys, 'argv', ['ibmd_basicsr', '-opt', str(write(tmp_path, opt)), *arguments])
        assert pipelines.main(is_train) == 0
        return tmp_path / ('experiments' if is_train else 'results') / opt['name']

    return run


def distillation(root, bridge, student, **changes) -> dict:
    """Return options of a distillation at scale 1 on the folder ``lq``, of a teacher that is conditional if its bridge is."""
    conditional = bridge.get('conditional', False)
    network = CONDITIONAL if conditional else NETWORK
    make_teacher(root, **({'cond_channels': 3} if conditional else {}))
    opt = options(root, 'IBMDModel', scale=1, bridge=bridge, network_g=network | {'noise_channels': 1}, teacher__network=network,
                  train__student=student, train__ema_decay=0.5, **changes)
    del opt['val'], opt['datasets']['val']
    return on_corrupted_images(opt, root)


def on_corrupted_images(opt: dict, root) -> dict:
    """Let all data sets of ``opt`` read the folder ``lq``, and ``masks`` if there is one."""
    for block in opt['datasets'].values():
        for key in ('dataroot_gt', 'degradation', 'return_gt'):
            block.pop(key, None)
        block['dataroot_lq'] = str(root / 'lq')
        if (root / 'masks').is_dir():
            block['dataroot_mask'] = str(root / 'masks')
    return opt


def corrupt(root, task: str, count: int = 3) -> None:
    """Leave corrupted images in ``lq`` (33x37 pixels, a quarter of it for sr) and, for inpaint, ``masks``; no clean image anywhere."""
    shutil.rmtree(root / 'photos', ignore_errors=True)
    rng = np.random.default_rng(5)
    for folder in ('lq', *(['masks'] if task == 'inpaint' else [])):
        (root / folder).mkdir()
    for i in range(count):
        image = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (37, 33), interpolation=cv2.INTER_CUBIC)
        if task == 'sr':
            image = image[:16, :16]
        elif task == 'jpeg':
            image = cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR)
        elif task == 'inpaint':
            mask = np.zeros((33, 37), np.uint8)
            cv2.line(mask, (i, 30), (36, 5 + i), 255, 7)
            mask[10:20, 2:9] = 255
            image[mask > 0] = 128
            cv2.imwrite(str(root / f'masks/{i}.png'), mask)
        elif task == 'edges':
            image = cv2.cvtColor(255 - cv2.Canny(image, 60, 120), cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(root / f'lq/{i}.png'), image)


def check_student(experiment) -> None:
    weights = load_file(experiment / 'models/net_g_latest.pth')
    assert set(weights) == {'params', 'params_ema'}
    assert all(torch.isfinite(value).all() for params in weights.values() for value in params.values())


# ---------------------------------------------------------------- corrupted images alone
@pytest.mark.parametrize('task, bridge, student', [
    ('sr', BRIDGES['noise'] | {'beta_max': 0.3, 'hole': 'keep'}, {'steps': 1}),
    ('jpeg', BRIDGES['noise'] | {'beta_max': 0.3, 'hole': 'keep'}, {'steps': 1}),
    ('inpaint', BRIDGES['noise_ode'], {'steps': 4}),
    ('edges', BRIDGES['vp'], {'steps': 2, 'scheme': 'bridge'}),
])
def test_distillation_needs_no_clean_image(pipeline, tmp_path, task, bridge, student):
    """Without validation, as a user without clean images leaves it out."""
    corrupt(tmp_path, task)
    opt = distillation(tmp_path, bridge, student, train__total_iter=3)
    if task == 'sr':
        opt['scale'], opt['datasets']['train']['gt_size'] = 4, 32
    check_student(pipeline(opt))


def test_validation_on_corrupted_images_writes_pictures(tmp_path):
    """The other way to validate without clean images: pictures and no metrics. Through the command itself, of a student of 4 steps."""
    corrupt(tmp_path, 'inpaint')
    opt = distillation(tmp_path, BRIDGES['endpoint'], {'steps': 4}, train__total_iter=3)
    opt['val'] = {'val_freq': 3, 'save_img': True, 'sampler': {'type': 'few_step', 'trained_steps': 4, 'steps': 2}}
    opt['datasets']['val'] = {'name': 'holes', 'type': 'DegradedImageDataset', 'dataroot_lq': str(tmp_path / 'lq'),
                              'dataroot_mask': str(tmp_path / 'masks')}
    result = forked_command('-opt', write(tmp_path, opt))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    check_student(tmp_path / 'experiments/tiny')
    pictures = list((tmp_path / 'experiments/tiny/visualization').rglob('*.png'))
    assert {path.parent.name for path in pictures} == {'0', '1', '2'} and cv2.imread(str(pictures[0])).shape == (33, 37, 3)


# ---------------------------------------------------------------- holes
@pytest.mark.parametrize('bridge, sampler', [
    ('noise', {'type': 'ancestral', 'steps': 3}),
    ('noise_ode', {'type': 'ode', 'steps': 3}),
    ('endpoint', {'type': 'dbim', 'steps': 3, 'eta': 1.0}),
    ('noise', {'type': 'few_step', 'steps': 4}),
    ('endpoint', {'type': 'few_step', 'trained_steps': 4, 'steps': 3}),
    ('noise', {'type': 'one_step'}),
])
def test_known_pixels_are_saved_as_they_were(pipeline, tmp_path, bridge, sampler):
    """Through the host's test pipeline into PNG files, at a size that is padded for the network."""
    corrupt(tmp_path, 'inpaint', count=2)
    network = CONDITIONAL if BRIDGES[bridge].get('conditional') else NETWORK
    make_teacher(tmp_path, **{key: network[key] for key in network.keys() - NETWORK.keys()})
    opt = options(tmp_path, scale=1, bridge=BRIDGES[bridge], network_g=network)
    del opt['train'], opt['logger']
    opt['datasets'] = {'test_1': {'name': 'holes', 'type': 'DegradedImageDataset'}}
    opt['path'] = {'pretrain_network_g': str(tmp_path / 'teacher.pth'), 'param_key_g': 'params_ema'}
    opt['val'] = {'save_img': True, 'sampler': sampler}
    results = pipeline(on_corrupted_images(opt, tmp_path))
    for i in range(2):
        restored = cv2.imread(str(results / f'visualization/holes/{i}_tiny.png'))
        given = cv2.imread(str(tmp_path / f'lq/{i}.png'))
        hole = cv2.imread(str(tmp_path / f'masks/{i}.png'), cv2.IMREAD_GRAYSCALE) > 0
        np.testing.assert_array_equal(restored[~hole], given[~hole])
        assert (restored[hole] != given[hole]).mean() > 0.5


# ---------------------------------------------------------------- students of several steps
@pytest.mark.parametrize('bridge, scheme', [('noise', 'posterior'), ('vp', 'bridge')])
def test_student_of_four_steps_validates_with_one_to_four(tmp_path, bridge, scheme):
    opt = parsed(distillation(tmp_path, BRIDGES[bridge], {'steps': 4, 'scheme': scheme})) | {'val': {}}
    opt['network_bridge'] = copy.deepcopy(opt['teacher']['network'])
    opt['path'] |= {'models': str(tmp_path), 'training_states': str(tmp_path)}
    model = build_model(opt)
    times = []
    model.net_g_ema.register_forward_pre_hook(lambda net, inputs: times.append(inputs[1][0].item()))
    model.feed_data({'lq': torch.rand(1, 3, 8, 12), 'lq_path': ['a.png']})
    trained, outputs = None, []
    for n in (4, 3, 2, 1):
        times.clear()
        model.opt['val']['sampler'] = {'type': 'few_step', 'trained_steps': 4, 'steps': n}
        model.test()
        assert len(times) == n and sorted(times, reverse=True) == times
        trained = trained or list(times)
        assert set(times) <= set(trained) and times[0] == trained[0]  # never at a time that training has not seen
        outputs.append(model.output)
    assert all(torch.isfinite(output).all() for output in outputs)
    assert not any(torch.equal(a, b) for a, b in zip(outputs, outputs[1:]))


# ---------------------------------------------------------------- labels
def test_class_conditional_networks_train_and_are_distilled(world, pipeline):
    """Two iterations of a teacher, then two of its student; the embedding of a class that no image has stays as it is."""
    classes = NETWORK | {'num_classes': 3}
    make_teacher(world, num_classes=3)
    (world / 'labels.txt').write_text('photo_0 0\nphoto_1 2\nphoto_2 2\n')
    common = {'scale': 1, 'train__total_iter': 2, 'datasets__train__label_file': str(world / 'labels.txt'),
              'datasets__train__batch_size_per_gpu': 3, 'datasets__train__dataset_enlarge_ratio': 1}  # all images in each batch
    jpeg = {'type': 'jpeg', 'quality': 10, 'codec': 'libjpeg'}
    start = load_file(world / 'teacher.pth')['params_ema']['label_emb.weight']

    opt = options(world, name='teacher', network_g=classes, **common)
    student = options(world, 'IBMDModel', name='student', network_g=classes | {'noise_channels': 1}, teacher__network=classes,
                      train__bridge_updates_per_student=1, **common)
    for one in (opt, student):
        one['datasets']['train']['degradation'] = jpeg
        del one['val'], one['datasets']['val']
    opt['path'] |= {'pretrain_network_g': str(world / 'teacher.pth'), 'param_key_g': 'params_ema'}
    trained = load_file(pipeline(opt) / 'models/net_g_latest.pth')['params']['label_emb.weight']
    assert torch.equal(trained[1], start[1]) and (trained != start)[[0, 2]].all()

    student['teacher']['weights'] = str(world / 'experiments/teacher/models/net_g_latest.pth')
    start = load_file(student['teacher']['weights'])['params_ema']['label_emb.weight']
    student = load_file(pipeline(student) / 'models/net_g_latest.pth')['params']['label_emb.weight']
    assert torch.equal(student[1], start[1]) and (student != start)[[0, 2]].all()


def test_a_class_that_the_network_does_not_have_is_one_line(world):
    """Labels from 1 on in place of 0."""
    make_teacher(world, num_classes=3)
    (world / 'labels.txt').write_text('photo_0 1\nphoto_1 2\nphoto_2 3\n')
    opt = options(world, network_g=NETWORK | {'num_classes': 3}, datasets__train__label_file=str(world / 'labels.txt'))
    del opt['val'], opt['datasets']['val']
    result = forked_command('-opt', write(world, opt))
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert 'photo_2.png: has the label 3; network_g.num_classes is 3, labels are 0 to 2.' in result.stderr


# ---------------------------------------------------------------- resume, several processes
@pytest.mark.parametrize('task, bridge, student', [
    ('edges', 'vp', {'steps': 2, 'scheme': 'bridge'}),
    ('inpaint', 'noise', {'steps': 4, 'scheme': 'posterior'}),
])
def test_resumed_run_equals_the_unbroken_one_bit_for_bit(pipeline, tmp_path, task, bridge, student):
    """6 iterations = 4, stop, resume 2, the last part in a process of its own."""
    corrupt(tmp_path, task)
    common = {'logger__save_checkpoint_freq': 2}
    whole = pipeline(distillation(tmp_path, BRIDGES[bridge], student, name='whole', train__total_iter=6, **common))
    broken = distillation(tmp_path, BRIDGES[bridge], student, name='broken', train__total_iter=6, **common)
    pipeline(broken | {'train': broken['train'] | {'total_iter': 4}})
    for name in ('net_g', 'net_bridge'):  # what lies behind iteration 4 must not be used
        (tmp_path / f'experiments/broken/models/{name}_latest.pth').unlink()
    result = forked_command('-opt', write(tmp_path, broken), '--auto_resume')
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert_equal(contents(whole, 6), contents(tmp_path / 'experiments/broken', 6))
    with pytest.raises(AssertionError):  # the comparison can tell two iterations apart
        assert_equal(contents(whole, 6)['state'], contents(whole, 4)['state'])


def test_two_processes_equal_one_with_the_doubled_batch(pipeline, tmp_path):
    """Scheme ``bridge`` draws one t_n for the images of all ranks. eps: see the test of the same name in test_resume.py."""
    corrupt(tmp_path, 'edges')
    optimizer = {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0, 'eps': 1e-5}
    common = {'train__optim_g': optimizer, 'train__optim_bridge': optimizer, 'train__total_iter': 6, 'logger__save_checkpoint_freq': 6}
    student = {'steps': 2, 'scheme': 'bridge'}
    one = pipeline(distillation(tmp_path, BRIDGES['vp'], student, name='one', datasets__train__batch_size_per_gpu=4, **common))
    two = distillation(tmp_path, BRIDGES['vp'], student, name='two', datasets__train__batch_size_per_gpu=2, **common)
    result = command('-opt', write(tmp_path, two), processes=2)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    first, second = contents(one, 6), contents(tmp_path / 'experiments/two', 6)
    for label in (key for key in first if key != 'state'):
        assert_equal(first[label], second[label], tolerance=1e-5)
