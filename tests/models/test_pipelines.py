"""BasicSR's own test pipeline, debug mode and paired dataset with our models, through the command line."""
import shutil

import cv2
import pytest
import torch
from tiny import NETWORK, command, forked_command, options, write

from ibmd_basicsr.data.degradations import sr_bicubic
from ibmd_basicsr.data.tensors import quantize_uint8


def run(*arguments, module='train', start=forked_command):
    """Run a command and fail with its log if it does."""
    result = start(*arguments, module=module)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def options_of_a_test_run(root):
    """Return options of a test run of the tiny teacher."""
    opt = options(root, name='tested')
    for block in ('train', 'logger'):
        del opt[block]
    opt['datasets'] = {'test_1': opt['datasets']['val']}
    opt['path'] = {'pretrain_network_g': str(root / 'teacher.pth'), 'param_key_g': 'params_ema'}
    opt['val'] = {'save_img': True, 'sampler': {'type': 'ancestral', 'steps': 2},
                  'metrics': {name: {'type': f'calculate_{name}', 'crop_border': 2} for name in ('psnr', 'ssim', 'lpips')}}
    return opt


def test_the_hosts_test_pipeline_writes_images_and_metrics(world):
    log = run('-opt', write(world, options_of_a_test_run(world)), module='test', start=command)
    for metric in ('psnr', 'ssim', 'lpips'):
        assert f'# {metric}: ' in log
    images = sorted((world / 'results/tested/visualization/photos_val').glob('*.png'))
    assert [path.name for path in images] == [f'photo_{i}_tested.png' for i in range(3)]
    assert cv2.imread(str(images[0])).shape == (40, 48, 3)


def test_restoring_without_ground_truth(world):
    """Corrupted images alone: no metric can be computed, the restored images are written."""
    (world / 'lq').mkdir()
    for i in range(2):
        photo = cv2.imread(str(world / f'photos/photo_{i}.png'))
        cv2.imwrite(str(world / f'lq/{i}.png'), photo[:9, :11])
    opt = options_of_a_test_run(world)
    opt['datasets'] = {'test_1': {'name': 'lq', 'type': 'DegradedImageDataset', 'dataroot_lq': str(world / 'lq')}}
    opt['val']['metrics'] = None
    run('-opt', write(world, opt), module='test')
    shapes = [cv2.imread(str(path)).shape for path in (world / 'results/tested/visualization/lq').glob('*.png')]
    assert shapes == [(36, 44, 3)] * 2


def test_the_last_validation_is_that_of_the_last_iteration(world):
    log = run('-opt', write(world, options(world, train__total_iter=3, val__save_img=True)))
    assert 'Best: ' in log and ' @ 3 iter' in log
    assert sorted(path.name for path in (world / 'experiments/tiny/visualization').rglob('*.png')) == [f'photo_{i}_3.png' for i in range(3)]


def test_debug_mode(world):
    log = run('-opt', write(world, options(world)), '--debug', '--force_yml', 'train:total_iter=1')
    assert 'debug_tiny' in log and (world / 'experiments/debug_tiny/models/net_g_latest.pth').is_file()


@pytest.mark.parametrize('model', ['BridgeModel', 'IBMDModel'])
def test_ready_made_pairs_of_the_host(world, model):
    """A folder of pairs through BasicSR's PairedImageDataset, unchanged, trains both models."""
    for name in ('gt', 'lq'):
        (world / name).mkdir()
    for path in (world / 'photos').iterdir():
        photo = cv2.imread(str(path))
        shutil.copy(path, world / 'gt' / path.name)
        lq = quantize_uint8(sr_bicubic(torch.from_numpy(photo).permute(2, 0, 1).float() / 255)) * 255
        cv2.imwrite(str(world / 'lq' / path.name), lq.round().byte().permute(1, 2, 0).numpy())
    opt = options(world, model, name='pairs', train__total_iter=3)
    pairs = {'type': 'PairedImageDataset', 'dataroot_gt': str(world / 'gt'), 'dataroot_lq': str(world / 'lq'),
             'filename_tmpl': '{}', 'io_backend': {'type': 'disk'}}
    for block in opt['datasets'].values():
        for key in ('degradation', 'return_gt'):
            block.pop(key, None)
        block |= pairs
    run('-opt', write(world, opt))
    weights = torch.load(world / 'experiments/pairs/models/net_g_latest.pth', weights_only=True)['params']
    assert all(torch.isfinite(value).all() for value in weights.values()) and NETWORK['model_channels'] in weights['out.0.weight'].shape
