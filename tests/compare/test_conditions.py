"""The comparison of inpainting, paired and class-conditional tasks: what reaches the restorers, and what counts as a changed image."""
import csv
import hashlib

import cv2
import numpy as np
import pytest
import torch
from tiny import NETWORK, make_photos, make_teacher

from ibmd_basicsr.cli.compare import make_parser
from ibmd_basicsr.reporting.comparison import BUILDERS
from ibmd_basicsr.reporting.pictures import load_pictures

INPAINT = {'type': 'DegradedImageDataset', 'dataroot_gt': 'photos', 'degradation': {'type': 'inpaint', 'mask': 'center', 'fill': 'grey'}}
PAIRS = {'type': 'PairedImageDataset', 'dataroot_gt': 'photos', 'dataroot_lq': 'lq'}


def bridge_row(name, sampler, *, bridge=None, **changes):
    return {'name': name, 'kind': 'bridge', 'network': dict(NETWORK), 'bridge': bridge or {'type': 'I2SB'}, 'weights': 'teacher.pth',
            'sampler': sampler} | changes


def plan(dataset, *rows):
    return {'name': 'tiny', 'scale': 1, 'output': 'out', 'grid': {'crop': 16, 'zoom': 1}, 'dataset': dataset,
            'restorers': [{'name': 'input', 'kind': 'input'}, *rows]}


@pytest.fixture
def run(compare, tmp_path):
    """The command compare with two pictures of 32x32 and a teacher."""
    make_photos(tmp_path / 'photos', count=2, size=(32, 32))
    make_teacher(tmp_path)
    return compare


def calls_by_row(folder):
    with (folder / 'out/results.csv').open(newline='') as file:
        return {record['row']: int(record['calls']) for record in csv.DictReader(file)}


def test_known_pixels_are_those_of_the_input_for_every_sampler(run, tmp_path):
    noisy = {'type': 'I2SB', 'hole': 'noise'}
    code, _, err = run(plan(INPAINT, bridge_row('ancestral', {'type': 'ancestral'}, bridge=noisy, steps=2),
                            bridge_row('ode', {'type': 'ode'}, bridge=noisy | {'ot_ode': True}, steps=[2]),
                            bridge_row('dbim', {'type': 'dbim', 'eta': 1.0}, bridge={'type': 'I2SB_DBIM'}, steps=[3]),
                            bridge_row('heun', {'type': 'heun', 'churn': 0}, bridge={'type': 'VP'}, steps=[3]),
                            bridge_row('few', {'type': 'few_step', 'trained_steps': 4}, bridge=noisy, steps=[1, 3])))
    assert code == 0, err
    assert calls_by_row(tmp_path) == {'input': 0, 'ancestral@2': 2, 'ode@2': 2, 'dbim@3': 3, 'heun@3': 3, 'few@1': 1, 'few@3': 3}
    for name in calls_by_row(tmp_path):
        for i in range(2):
            restored, given, clean = (cv2.imread(str(tmp_path / path / f'photo_{i}.png')) for path in (
                f'out/images/{name}', 'out/images/input', 'photos'))
            known = np.ones((32, 32), bool)
            known[8:24, 8:24] = False
            np.testing.assert_array_equal(restored[known], clean[known])
            assert name == 'input' or (restored[~known] != given[~known]).any()


def test_mask_and_label_reach_restorers_from_the_warm_up_on(run, monkeypatch, tmp_path):
    seen = []

    class Recorder:
        calls, parameters = 1, 0

        def __call__(self, lq, noise, on_step=None, *, mask=None, labels=None):
            seen.append((mask.shape, int(mask.sum()), labels.tolist(), labels.dtype))
            on_step(None, None)
            return lq

    monkeypatch.setitem(BUILDERS, 'bridge', lambda **_: Recorder())
    (tmp_path / 'labels.txt').write_text('photo_0 2\nphoto_1 1\n')
    assert run(plan(INPAINT | {'label_file': 'labels.txt'}, bridge_row('student', {'type': 'one_step'})))[0] == 0
    assert seen == [((1, 1, 32, 32), 256, [label], torch.int64) for label in (2, 2, 1)]


def test_class_conditional_network_is_compared(run, tmp_path):
    (tmp_path / 'labels.txt').write_text('photo_0 2\nphoto_1 1\n')
    make_teacher(tmp_path, num_classes=3)
    row = bridge_row('student', {'type': 'one_step'}, network=NETWORK | {'num_classes': 3})
    jpeg = INPAINT | {'degradation': {'type': 'jpeg', 'quality': 20, 'codec': 'libjpeg'}}
    assert run(plan(jpeg | {'label_file': 'labels.txt'}, row))[0] == 0
    code, _, err = run(plan(jpeg, row))
    assert code == 1 and 'student: ADMUNet: y must be given (num_classes=3).' in err


def digests(dataset):
    return [picture.digest for picture in load_pictures({'name': 'tiny', 'scale': 1, 'dataset': dataset}, None)]


def test_digests_know_masks_and_labels_and_are_as_before_without(run, tmp_path):
    jpeg = INPAINT | {'degradation': {'type': 'jpeg', 'quality': 20, 'codec': 'libjpeg'}}
    plain = load_pictures({'name': 'tiny', 'scale': 1, 'dataset': jpeg}, None)
    assert [p.digest for p in plain] == [hashlib.sha256(p.lq.numpy().tobytes() + p.gt.numpy().tobytes()).hexdigest() for p in plain]
    assert all(p.mask is None and p.labels is None for p in plain)
    labels = tmp_path / 'labels.txt'
    labels.write_text('photo_0 0\nphoto_1 1\n')
    labelled = digests(jpeg | {'label_file': 'labels.txt'})
    labels.write_text('photo_0 0\nphoto_1 2\n')
    assert [a == b for a, b in zip(labelled, digests(jpeg | {'label_file': 'labels.txt'}))] == [True, False]
    # white pictures with another hole: lq and gt are the same, the mask is not
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'photos/photo_{i}.png'), np.full((32, 32, 3), 255, np.uint8))
    white = INPAINT['degradation'] | {'fill': 'white'}
    center = load_pictures({'name': 'tiny', 'scale': 1, 'dataset': INPAINT | {'degradation': white}}, None)[0]
    freeform = load_pictures({'name': 'tiny', 'scale': 1, 'dataset': INPAINT | {'degradation': white | {
        'mask': 'freeform', 'ratio': [0.1, 0.2]}}}, None)[0]
    assert torch.equal(center.lq, freeform.lq) and not torch.equal(center.mask, freeform.mask)
    assert center.digest != freeform.digest


def test_pairs_of_the_host(run, tmp_path):
    make_photos(tmp_path / 'photos', count=5, size=(32, 32))
    make_photos(tmp_path / 'lq', count=5, size=(32, 32), seed=1)
    disk = PAIRS | {'io_backend': {'type': 'disk'}}
    assert [p.name for p in load_pictures({'name': 'tiny', 'scale': 1, 'dataset': disk}, 4)] == [f'photo_{i}' for i in range(4)]
    code, out, err = run(plan(PAIRS, bridge_row('student', {'type': 'one_step'})))
    assert code == 0, err
    for name, folder in (('input', 'lq'), ('student', 'out/images/student')):
        assert f'| {name} ' in out and len(list((tmp_path / folder).glob('*.png'))) == 5
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'out/images/input/photo_3.png')), cv2.imread(str(tmp_path / 'lq/photo_3.png')))


@pytest.mark.parametrize('count, size, change, message', [
    (2, (16, 16), {}, "the ground truth of 'photo_0' has 16x16 pixels, but its corrupted image and scale 2 ask for 32x32"),
    (3, (16, 16), {}, 'dataset: '),
    (2, (16, 16), {'dataroot_lq': 'nowhere'}, 'nowhere'),
])
def test_pairs_that_do_not_match_are_refused_in_one_line(run, tmp_path, count, size, change, message):
    make_photos(tmp_path / 'photos', count=2, size=(16, 16))
    make_photos(tmp_path / 'lq', count=count, size=size, seed=1)
    code, _, err = run(plan(PAIRS | change) | {'scale': 2})
    assert code == 2 and len(err.splitlines()) == 1 and message in err


def test_students_of_several_steps_keep_their_list(run, tmp_path):
    rows = (bridge_row('teacher', {'type': 'ancestral'}, steps=[1, 2]),
            bridge_row('student', {'type': 'few_step', 'trained_steps': 2}, steps=[1, 2]))
    code, _, err = run(plan(INPAINT, *rows), '--limit', '1', '--steps', '3', '5')
    assert code == 0, err
    assert calls_by_row(tmp_path) == {'input': 0, 'teacher@3': 3, 'teacher@5': 5, 'student@1': 1, 'student@2': 2}
    assert 'few_step students keep theirs' in make_parser().format_help().replace('\n', ' ').replace('  ', '')
