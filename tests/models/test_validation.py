"""Validation: BasicSR's numbers and files, all kinds of metrics in one block, and any number of ranks equal to one."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import FORKS, forked_command, make_photos, make_teacher, options, parsed, write

import ibmd_basicsr.data
import ibmd_basicsr.losses
import ibmd_basicsr.metrics
import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.data import build_dataloader, build_dataset  # isort: skip
from basicsr.models import build_model  # isort: skip
from basicsr.models.sr_model import SRModel  # isort: skip
from basicsr.utils import get_root_logger  # isort: skip
from ibmd_basicsr.metrics.diversity import mean_pairwise_lpips
from ibmd_basicsr.models.validation import image_keys
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise, derive_seed

pytestmark = pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')


SETS = {'five': 5, 'two': 2}
"""Folders and their numbers of images."""


class Brightness(torch.nn.Module):
    """Class 0 is dark, 1 light."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def metrics_of_all_kinds(root: Path) -> dict:
    torch.jit.script(Brightness()).save(str(root / 'brightness.pt'))
    return {'psnr': {'type': 'calculate_psnr', 'crop_border': 4},
            'lpips': {'type': 'calculate_lpips', 'crop_border': 0},
            'accuracy': {'type': 'calculate_classifier_accuracy', 'classifier': str(root / 'brightness.pt')},
            'fd': {'type': 'FrechetDistance'},
            'kd': {'type': 'KernelDistance', 'reference': str(root / 'photos')},
            'diversity': {'type': 'Diversity', 'samples': 2}}


def build(root: Path, metrics: dict, rank: int = 0, ranks: int = 1, model: str = 'BridgeModel', **changes):
    """Build model and loader as the pipelines do."""
    opt = parsed(options(root, model, val__metrics=metrics, **changes), is_train=False)
    opt |= {'dist': ranks > 1, 'rank': rank, 'world_size': ranks}
    opt['path'] |= {'visualization': str(root / f'images_{rank}_of_{ranks}'), 'pretrain_network_g': str(root / 'teacher.pth'),
                    'param_key_g': 'params_ema'}
    data = opt['datasets']['val'] | {'phase': 'val', 'scale': 4}
    return build_model(opt), build_dataloader(build_dataset(data), data)


def validate(root: Path, metrics: dict, rank: int = 0, ranks: int = 1, iterations=(7,), **changes):
    model, loader = build(root, metrics, rank, ranks, **changes)
    for iteration in iterations:
        model.validation(loader, iteration, None, save_img=True)
    return model


def one_of_several(rank: int, ranks: int, root: Path) -> None:
    """Validate as a rank of several and write down what it then knows."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{root}/rendezvous', rank=rank, world_size=ranks)
    for name in SETS:
        folder = root / name
        model = validate(folder, json.loads((folder / 'metrics.json').read_text()), rank, ranks, iterations=(7, 8))
        (folder / f'{rank}.json').write_text(json.dumps([model.metric_results, model.best_metric_results]))
    dist.destroy_process_group()


def written(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.rglob('*.png')}


def test_ranks_equal_one_process_to_the_last_bit(tmp_path):
    """3 ranks: 5 images do not divide, of 2 images one rank gets none."""
    ranks = 3
    for name, count in SETS.items():
        make_photos(tmp_path / name / 'photos', count=count)
        make_teacher(tmp_path / name)
        (tmp_path / name / 'metrics.json').write_text(json.dumps(metrics_of_all_kinds(tmp_path / name)))
    mp.start_processes(one_of_several, (ranks, tmp_path), ranks, start_method=FORKS.get_start_method())
    for name, count in SETS.items():
        folder = tmp_path / name
        one = validate(folder, metrics_of_all_kinds(folder), iterations=(7, 8))
        expected = json.loads(json.dumps([one.metric_results, one.best_metric_results]))
        assert expected[1]['photos_val']['psnr']['iter'] == 8 and expected[0]['fd'] > 0 and expected[0]['diversity'] > 0
        for rank in range(ranks):
            assert json.loads((folder / f'{rank}.json').read_text()) == expected
        shares = [written(folder / f'images_{rank}_of_{ranks}') for rank in range(ranks)]
        assert [len(share) for share in shares] == [len(range(rank, count, ranks)) for rank in range(ranks)]
        assert {name: content for share in shares for name, content in share.items()} == written(folder / 'images_0_of_1')


def test_the_test_command_on_two_processes(world):
    opt = options(world, name='tested')
    for block in ('train', 'logger'):
        del opt[block]
    opt['datasets'] = {'test_1': opt['datasets']['val']}
    opt['path'] = {'pretrain_network_g': str(world / 'teacher.pth'), 'param_key_g': 'params_ema'}
    opt['val'] = {'save_img': True, 'suffix': 'x', 'pbar': True, 'sampler': {'type': 'ancestral', 'steps': 2},
                  'metrics': metrics_of_all_kinds(world)}
    result = forked_command('-opt', write(world, opt), processes=2, module='test')
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    logged = [line.split('Best')[0].strip() for line in (result.stdout + result.stderr).splitlines() if '\t # ' in line]
    one = validate(world, metrics_of_all_kinds(world), val__suffix='x')
    assert logged == [f'# {name}: {value:.4f}' for name, value in one.metric_results.items()]  # once, by rank 0
    images = written(world / 'results/tested')
    assert sorted(images) == [f'photo_{i}_x.png' for i in range(3)] and images == written(world / 'images_0_of_1')


def test_numbers_files_and_log_are_the_hosts(world, monkeypatch, caplog):
    """BasicSR's own method on the same model, for what it knows."""
    monkeypatch.setattr(get_root_logger(), 'propagate', True)
    metrics = {name: block | {'better': better} for (name, block), better in zip(metrics_of_all_kinds(world).items(), ('higher', 'lower'))}
    found = []
    for method in (SRModel.nondist_validation, None):
        model, loader = build(world, metrics, datasets__val__name=f'set_{method is None:d}', val__suffix=None)
        caplog.clear()
        with caplog.at_level('INFO', 'basicsr'):
            method(model, loader, 7, None, True) if method else model.validation(loader, 7, None, True)
        found.append((model.metric_results, list(model.best_metric_results.values())[0], caplog.messages[-1].splitlines()[1:],
                      written(world / 'images_0_of_1' / f'set_{method is None:d}')))
    (host, host_best, host_log, host_images), (ours, best, log, images) = found
    assert ours == pytest.approx(host, rel=1e-12) and set(ours) == {'psnr', 'lpips'}
    assert {name: one['iter'] for name, one in best.items()} == {name: one['iter'] for name, one in host_best.items()}
    assert log == host_log and images == host_images and len(images) == 3


def test_directions_come_from_the_metrics(world):
    model = validate(world, metrics_of_all_kinds(world))
    better = {name: one['better'] for name, one in model.best_metric_results['photos_val'].items()}
    assert better == {'psnr': 'higher', 'lpips': 'lower', 'accuracy': 'higher', 'fd': 'lower', 'kd': 'lower', 'diversity': 'higher'}


def test_a_set_and_itself(world, monkeypatch):
    """A restorer that hands back the clean images: no distance, full accuracy, no diversity. The second time nothing is left over."""
    model, loader = build(world, metrics_of_all_kinds(world) | {'fd2': {'type': 'FrechetDistance', 'reference': str(world / 'photos')}})
    monkeypatch.setattr(model, 'test', lambda sample=0: setattr(model, 'output', model.gt), raising=False)
    for iteration in (1, 2):
        model.validation(loader, iteration, None)
        values = model.metric_results
        assert values['fd'] == pytest.approx(0, abs=1e-6) and values['fd2'] == values['fd']
        assert values['kd'] <= 1e-9 and values['lpips'] == values['diversity'] == 0 and values['accuracy'] == 100


def test_diversity_is_that_of_the_draws(world):
    """Sample 0 is the restoration that the other metrics see; the others have noise of their own, fixed by seed, name and number."""
    model, loader = build(world, {'diversity': {'type': 'Diversity', 'samples': 3}})
    model.validation(loader, 7, None, save_img=True)
    expected = []
    for data in loader:
        draws = []
        for sample in range(3):
            model.feed_data(data)
            model.test(sample)
            draws.append((model.output[0].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8))
        expected.append(mean_pairwise_lpips(draws))
    assert model.metric_results['diversity'] == pytest.approx(np.mean(expected), rel=1e-12) and min(expected) > 0
    first, second = (PerImageNoise.for_images(3, ['a'], sample).rand() for sample in (0, 1))
    assert first == PerImageNoise.from_seeds([derive_seed('image', 3, 'a')]).rand() != second


def test_accuracy_against_labels(world):
    """Labels by name, in any order; what the pictures show is counted with the classifier itself."""
    metrics = {'accuracy': metrics_of_all_kinds(world)['accuracy'] | {'labels': str(world / 'labels.txt')}}
    (world / 'labels.txt').write_text('photo_2.png 0\nphoto_0 0\nphoto_1.png 0\n')
    dark = validate(world, metrics).metric_results['accuracy']
    (world / 'labels.txt').write_text('photo_2.png 1\nphoto_0 1\nphoto_1.png 1\n')
    assert dark + validate(world, metrics).metric_results['accuracy'] == pytest.approx(100)
    (world / 'labels.txt').write_text('photo_2.png 1\n')
    with pytest.raises(OptionError, match='no label for photo_0.png'):
        validate(world, metrics)


def test_images_of_one_name_in_several_folders(world):
    """As in REDS: each has a file and noise of its own; an image whose name is its own keeps them."""
    make_photos(world / 'tree' / 'a', 2)
    make_photos(world / 'tree' / 'b', 1)
    model, loader = build(world, None, datasets__val__dataroot_gt=str(world / 'tree'), datasets__val__name='tree')
    model.opt['is_train'], drawn = False, []
    test = model.test

    def recording(*arguments):
        drawn.append(model.names)
        test(*arguments)

    model.test = recording
    model.dist_validation(loader, 1, None, save_img=True)
    assert drawn == [['a/photo_0'], ['photo_1'], ['b/photo_0']]
    folder = Path(model.opt['path']['visualization']) / 'tree'
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png')) \
        == ['a/photo_0_tiny.png', 'b/photo_0_tiny.png', 'photo_1_tiny.png']


def test_cudnn_tries_no_algorithms_for_images_of_many_sizes(world, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    model, loader = build(world, None)
    seen, test = [], model.test
    model.test = lambda *arguments: (seen.append(torch.backends.cudnn.benchmark), test(*arguments))
    model.dist_validation(loader, 1, None, save_img=False)
    assert seen == [False] * 3 and torch.backends.cudnn.benchmark


def test_best_values_outlive_a_resume(world):
    metrics = {name: {'type': f'calculate_{name}', 'crop_border': 4} for name in ('psnr', 'ssim')}
    before, loader = build(world, metrics)
    before.dist_validation(loader, 2, None, save_img=False)
    saved = before._best_metrics()
    saved['photos_val']['psnr']['val'] = 100.0  # nothing that follows is better
    after, loader = build(world, {'psnr': metrics['psnr'], 'lpips': {'type': 'calculate_lpips', 'crop_border': 4}})
    after.best_metric_results = saved
    after.dist_validation(loader, 4, None, save_img=False)
    best = after.best_metric_results['photos_val']
    assert best['psnr'] == saved['photos_val']['psnr'] and best['psnr']['iter'] == 2
    assert set(best) == {'psnr', 'lpips'} and best['lpips']['iter'] == 4


def test_names_of_images_in_the_hosts_datasets():
    class Host:
        paths = [{'lq_path': 'a/b.png', 'gt_path': 'c/b.png'}, 'd/e.png']
    assert image_keys(Host()) == ['b.png', 'e.png']


def test_without_metrics_images_are_still_written(world):
    model = validate(world, None)
    assert len(written(world / 'images_0_of_1')) == 3 and not hasattr(model, 'metric_results')


def test_what_a_metric_cannot_take_is_one_line(world):
    with pytest.raises(OptionError, match=r'val\.metrics\.lpips: calculate_lpips: needs at least 32 pixels'):
        validate(world, {'lpips': {'type': 'calculate_lpips', 'crop_border': 10}})
    with pytest.raises(OptionError, match=r'val\.metrics\.psnr: calculate_psnr compares with clean images'):
        validate(world, {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}, datasets__val__return_gt=False)
    with pytest.raises(OptionError, match=r'val\.metrics\.fd: the data set has no clean images: give a reference'):
        validate(world, {'fd': {'type': 'FrechetDistance'}}, datasets__val__return_gt=False)
    for path in list((world / 'photos').iterdir())[1:]:
        path.unlink()
    with pytest.raises(OptionError, match=r'val\.metrics\.fd: a covariance needs at least 2 images, got 1'):
        validate(world, {'fd': {'type': 'FrechetDistance'}})


class TestOtherRestorers:
    NETWORK = {'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 4}

    def build(self, world, metrics):
        return build(world, metrics, model='SetMetricSRModel', network_g=self.NETWORK)

    @pytest.fixture(autouse=True)
    def _weights(self, world):
        from basicsr.archs.srresnet_arch import MSRResNet
        torch.save({'params_ema': MSRResNet(**{k: v for k, v in self.NETWORK.items() if k != 'type'}).state_dict()}, world / 'teacher.pth')

    def test_set_metrics_of_an_sr_model(self, world):
        metrics = {name: block for name, block in metrics_of_all_kinds(world).items() if name != 'diversity'}
        model, loader = self.build(world, metrics)
        model.validation(loader, 7, None)
        assert model.metric_results['fd'] > 0 and set(model.metric_results) == set(metrics)

    def test_wrong_blocks_are_refused_before_anything_is_built(self, world):
        with pytest.raises(OptionError, match=r"did you mean 'FrechetDistance'.*\n.*kd: unknown key 'feature'"):
            self.build(world, {'fd': {'type': 'FrechetDistanc'}, 'kd': {'type': 'KernelDistance', 'feature': 'vgg16'}})
        with pytest.raises(OptionError, match='Diversity needs a model that draws noise, not SetMetricSRModel'):
            self.build(world, {'diversity': {'type': 'Diversity'}})
