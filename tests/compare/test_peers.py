"""Restorers of other makes, several test sets and more metrics: what the option file says is what is run, measured and kept."""
import csv
import hashlib
import pickle
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from ncnn_files import enlarger, upscaler
from tiny import NETWORK, REPOSITORY, make_photos, make_teacher
from torch import nn

from ibmd_basicsr.metrics import features, set_metrics
from ibmd_basicsr.metrics.set_metrics import FrechetDistance
from ibmd_basicsr.models.network_cost import measure_network
from ibmd_basicsr.reporting import peers, quality
from ibmd_basicsr.reporting.comparison import ORIGIN_KEYS, RESTORED_KEYS, Comparison
from ibmd_basicsr.reporting.pairs import read_sets
from ibmd_basicsr.reporting.peers import PeerRestorer, build_arch, build_spandrel
from ibmd_basicsr.reporting.pictures import load_pictures
from ibmd_basicsr.reporting.quality import read_metrics
from ibmd_basicsr.reporting.rows import KEYS, ROW_KEYS, TILE_PAD, read_rows
from ibmd_basicsr.utils.errors import CheckpointError, DataError, OptionError

COMPACT = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 1, 'upscale': 4}
ARCHS = {
    'MSRResNet': {'num_feat': 8, 'num_block': 1, 'upscale': 4},
    'EDSR': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 4},
    'RRDBNet': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4, 'scale': 4},
    'RCAN': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 4},
    'SRVGGNetCompact': {key: value for key, value in COMPACT.items() if key != 'type'},
    'SwinIR': {'img_size': 8, 'embed_dim': 8, 'depths': [1, 1], 'num_heads': [2, 2], 'window_size': 4, 'upscale': 4,
               'upsampler': 'pixelshuffledirect', 'mlp_ratio': 2},
}
SR = {'type': 'DegradedImageDataset', 'dataroot_gt': 'photos',
      'degradation': {'type': 'sr', 'scale': 4, 'kernel': 'bicubic', 'quantize': True}}


def save_network(path, options, *, key='params', seed=0):
    torch.manual_seed(seed)
    net = build_network(dict(options)).eval()
    torch.save({key: net.state_dict()} if key else net.state_dict(), path)
    return net


def arch_row(name='peer', network=None, **changes):
    return {'name': name, 'kind': 'arch', 'network': network or COMPACT, 'weights': 'peer.pth'} | changes


def ncnn_row(name='peer', **changes):
    return {'name': name, 'kind': 'ncnn', 'weights': 'peer.param'} | changes


def plan(*rows, **changes):
    return {'name': 'tiny', 'scale': 4, 'output': 'out', 'grid': {'crop': 16, 'zoom': 1}, 'dataset': SR,
            'restorers': [{'name': 'bicubic', 'kind': 'input'}, *rows]} | changes


@pytest.fixture
def run(compare, tmp_path):
    """The command compare with two pictures of 52x44 and ``peer.pth``."""
    make_photos(tmp_path / 'photos', count=2, size=(52, 44))
    save_network(tmp_path / 'peer.pth', COMPACT)
    return compare


@pytest.fixture
def restorations(monkeypatch):
    """The sizes of the images that peers restore, warm-up included."""
    seen = []
    original = PeerRestorer.__call__

    def call(self, lq, *arguments, **options):
        seen.append(tuple(lq.shape[-2:]))
        return original(self, lq, *arguments, **options)

    monkeypatch.setattr(PeerRestorer, '__call__', call)
    return seen


def read_csv(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def comparison_input(name):
    return next(picture.lq for picture in load_pictures({'name': 'tiny', 'scale': 4, 'dataset': SR}, None) if picture.name == name)


# networks of BasicSR

@pytest.mark.parametrize('kind', ARCHS)
def test_networks_of_basicsr(tmp_path, kind):
    network = {'type': kind, **ARCHS[kind]}
    net = save_network(tmp_path / 'peer.pth', network)
    restorer = build_arch(network=network, weights=str(tmp_path / 'peer.pth'), scale=4)
    assert restorer.calls == 1 and restorer.parameters == sum(p.numel() for p in net.parameters()) and restorer.param_key == 'params'
    lq = torch.rand(1, 3, 11, 14)
    padded = nn.functional.pad(lq, (0, 2, 0, 1), mode='reflect') if kind == 'SwinIR' else lq
    with torch.no_grad():
        expected = net(padded)[..., :44, :56].clamp(0, 1)
    torch.testing.assert_close(restorer(lq), expected, atol=1e-6, rtol=0)
    assert restorer(torch.rand(1, 3, 1, 1)).shape == (1, 3, 4, 4)


def test_ranges_and_enlarged_inputs():
    lq = torch.rand(1, 3, 6, 7)
    seen = []

    def net(x):
        seen.append((x.min().item(), x.max().item(), x.shape))
        return x

    restored = PeerRestorer(net, 0, scale=3, input_range=(-1, 1), upsampled_input=True)(lq)
    torch.testing.assert_close(restored, peers.enlarge(lq, 3), atol=1e-6, rtol=0)
    assert -1 <= seen[0][0] < -0.5 and 0.5 < seen[0][1] <= 1 and seen[0][2] == (1, 3, 18, 21)
    torch.testing.assert_close(PeerRestorer(net, 0, scale=1, input_range=(0, 255))(lq), lq, atol=1e-6, rtol=0)
    assert seen[1][1] > 100
    assert PeerRestorer(lambda x: x * 9 - 4, 0, scale=1)(lq).min() == 0
    with pytest.raises(ValueError, match=r'the network returns \(1, 3, 6, 7\) for \(1, 3, 6, 7\), scale 4 asks for \(1, 3, 24, 28\)'):
        PeerRestorer(net, 0, scale=4)(lq)
    with pytest.raises(ValueError, match='not finite'):
        PeerRestorer(lambda x: x / 0, 0, scale=1)(lq)


def test_weights_are_chosen_named_and_loaded_strictly(tmp_path):
    path = tmp_path / 'peer.pth'
    for key in ('params', 'params_ema', None):
        save_network(path, COMPACT, key=key)
        assert build_arch(network=COMPACT, weights=str(path), scale=4).param_key == key
    save_network(path, COMPACT, key='params')
    with pytest.raises(CheckpointError, match="has no 'params_ema'; it holds 'params'"):
        build_arch(network=COMPACT, weights=str(path), param_key='params_ema', scale=4)
    with pytest.raises(CheckpointError, match='does not fit the network SRVGGNetCompact: 7 of another shape'):
        build_arch(network=COMPACT | {'num_feat': 16}, weights=str(path), scale=4)
    path.write_bytes(pickle.dumps(shutil.rmtree))
    with pytest.raises(CheckpointError, match='peer.pth'):
        build_arch(network=COMPACT, weights=str(path), scale=4)


def test_a_row_of_another_make_from_option_file_to_table(run, tmp_path, restorations):
    code, out, err = run(plan(arch_row(), arch_row('tiled', tile=6, tile_pad=4)))
    assert code == 0, err
    net = build_network(dict(COMPACT)).eval()
    net.load_state_dict(torch.load(tmp_path / 'peer.pth')['params'])
    records = {(r['row'], r['image']): r for r in read_csv(tmp_path / 'out/results.csv')}
    for name in ('photo_0', 'photo_1'):
        lq = comparison_input(name)
        with torch.no_grad():
            expected = tensor2img(net(lq).clamp(0, 1))
        whole, tiled = (cv2.imread(str(tmp_path / f'out/images/{row}/{name}.png')) for row in ('peer', 'tiled'))
        np.testing.assert_array_equal(whole, expected)
        assert np.abs(whole.astype(int) - tiled).max() <= 1  # a value at the edge of rounding may fall to the other side
    # 13x11 pixels, three 3x3 convolutions: 2 FLOPs per multiply-add
    flops = 13 * 11 * 9 * 2 * (3 * 8 + 8 * 8 + 8 * 48)
    peer, tiled = records['peer', 'photo_0'], records['tiled', 'photo_0']
    assert float(peer['gflops']) == pytest.approx(flops / 1e9, rel=1e-9) and float(tiled['gflops']) > float(peer['gflops'])
    assert (peer['calls'], peer['tiles'], tiled['tiles'], peer['kind'], peer['param_key']) == ('1', '1', '6', 'arch', 'params')
    assert peer['peak_memory_mib'] == '' and float(peer['images_per_second']) == pytest.approx(1 / float(peer['seconds']))
    assert peer['parameters'] == str(sum(p.numel() for p in net.parameters())) and peer['device']
    table = (tmp_path / 'out/table.md').read_text()
    assert '`peer.pth` (sha256 ' in table and ', params), ' in table and 'GFLOPs' in table
    assert '* tiled: in tiles of 6 input pixels with a halo of 4' in table
    summary = {r['row']: r for r in read_csv(tmp_path / 'out/summary.csv')}
    assert float(summary['peer']['seconds']) == pytest.approx(
        np.median([float(records['peer', name]['seconds']) for name in ('photo_0', 'photo_1')]))
    assert summary['peer']['images'] == '2' and summary['bicubic']['gflops'] == '0.0'

    restorations.clear()
    assert run(plan(arch_row(), arch_row('tiled', tile=6, tile_pad=4)))[0] == 0 and restorations == []
    assert run(plan(arch_row(), arch_row('tiled', tile=8, tile_pad=4)))[0] == 0 and (13, 11) not in restorations and restorations
    restorations.clear()
    assert run(plan(arch_row(), arch_row('tiled', tile=0), tile=50, tile_pad=3))[0] == 0
    assert restorations == [(13, 11)] * 6  # both rows have other tiles than before, each with a call to warm up


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_memory_of_a_gpu(run, tmp_path):
    code, _, err = run(plan(arch_row()), '--device', 'cuda')
    assert code == 0, err
    for record in read_csv(tmp_path / 'out/results.csv'):
        assert 4 * int(record['parameters']) / 2**20 < float(record['peak_memory_mib']) < 100


@pytest.mark.parametrize('row, message', [
    (arch_row(network=COMPACT | {'num_feet': 8}), "SRVGGNetCompact: unknown key 'num_feet', did you mean 'num_feat'?"),
    (arch_row(network={'type': 'MSRResNet', 'num_feat': 'many'}), 'MSRResNet: '),
    (arch_row(network={'type': 'UNetDiscriminatorSN', 'num_in_ch': 3}), 'does not fit the network UNetDiscriminatorSN'),
    (arch_row(weights='nowhere.pth'), 'no weight file: nowhere.pth not found.'),
    (arch_row(param_key='ema'), "peer.pth: has no 'ema'; it holds 'params'."),
    (arch_row(upsampled_input=True), 'the network returns (1, 3, 208, 176) for (1, 3, 52, 44), scale 4 asks for (1, 3, 52, 44).'),
    ({'name': 'peer', 'kind': 'spandrel', 'weights': 'nowhere.pth'}, 'no weight file: nowhere.pth not found.'),
    (ncnn_row(weights='nowhere.param'), 'no weight file: nowhere.param not found.'),
    (ncnn_row(weights='peer.pth'), 'peer.pth: must end in .param for kind ncnn; the weights lie beside it in a .bin.'),
    (ncnn_row(weights='lonely.param'), 'lonely.bin: no such file; kind ncnn needs it beside lonely.param.'),
    (ncnn_row(output='result'), "peer.param: no blob 'result' for output; it has data, output."),
    (ncnn_row(), 'the network returns (3, 26, 22) for (3, 13, 11), scale 4 asks for (3, 52, 44).'),
    (ncnn_row(scale=3), 'a network of scale 3 does not lead to scale 4.'),
])
def test_a_broken_peer_is_reported_and_skipped(run, tmp_path, row, message):
    enlarger(tmp_path / 'peer.param', 2)
    enlarger(tmp_path / 'lonely.param', 4)
    (tmp_path / 'lonely.bin').unlink()
    code, _, err = run(plan(row, arch_row('good')), '--limit', '1')
    assert code == 1
    lines = [line for line in err.splitlines() if line.startswith('error: peer: ')]
    assert len(lines) == 1 and message in lines[0]
    table = (tmp_path / 'out/table.md').read_text()
    assert '**peer failed**' in table and '| good ' in table and '| peer ' not in table


@pytest.mark.parametrize('options, message', [
    (plan(arch_row(network=COMPACT | {'type': 'SRVGGNet'})), "network.type: no architecture 'SRVGGNet', did you mean 'SRVGGNetCompact'?"),
    (plan(arch_row(sampler={})), "restorers[1] (peer): unknown key 'sampler'"),
    (plan(arch_row(tile=-1)), 'restorers[1] (peer).tile: must be a number of pixels of the input, 0 for whole images, got -1.'),
    (plan(arch_row(), tile_pad='wide'), "tile_pad: must be a number of pixels of the input"),
    (plan(arch_row(size_multiple=0)), 'size_multiple: must be a positive integer, got 0.'),
    (plan(arch_row(input_range=[1, 0])), 'input_range: must be the lowest and the highest value, such as [0, 255], got [1, 0].'),
    (plan(arch_row(network='EDSR')), "network: must be a block with a type, got 'EDSR'."),
    (plan({'name': 's', 'kind': 'spandrel'}), "restorers[1] (s): missing 'weights'."),
    (plan({'name': 'n', 'kind': 'ncnn'}), "restorers[1] (n): missing 'weights'."),
    (plan(ncnn_row(channels='YUV')), "channels: must be one of 'RGB', 'BGR', got 'YUV'."),
    (plan(ncnn_row(output=1)), 'output: must be the name of a blob, got 1.'),
    (plan(ncnn_row(scale=0)), 'scale: must be a whole number, at least 1, got 0.'),
    (plan(ncnn_row(padding=-1)), 'padding: must be a whole number, at least 0, got -1.'),
    (plan(ncnn_row(input_range=[0])), 'input_range: must be the lowest and the highest value, such as [0, 255], got [0].'),
    (plan(ncnn_row(param_key='params')), "restorers[1] (peer): unknown key 'param_key'"),
    (plan(datasets=[SR]), 'give either dataset (a block) or datasets (a list of blocks).'),
    ({key: value for key, value in plan().items() if key != 'dataset'}, 'give either dataset'),
    (plan() | {'dataset': None}, 'dataset: must be a block'),
    (plan(metrics={'type': 'calculate_psnr'}), 'metrics: must be a list of blocks with a type'),
    (plan(metrics=['calculate_pnsr']), "metrics[0].type: no metric 'calculate_pnsr' is registered, did you mean 'calculate_psnr'?"),
    (plan(metrics=['Diversity']), 'metrics[0] (Diversity): judges several restorations of an image, of which a comparison makes one.'),
    (plan(metrics=['calculate_psnr']), "metrics[0]: the name 'psnr' is taken; give another one as name."),
    (plan(metrics=[{'type': 'calculate_psnr', 'name': 'seconds'}]), "metrics[0]: the name 'seconds' is taken"),
    (plan(metrics=[{'type': 'calculate_psnr', 'name': 'y', 'test_y': True}]), "unknown key 'test_y', did you mean 'test_y_channel'?"),
    (plan(metrics=[{'type': 'calculate_dists', 'vgg_weights': 'nowhere.pth'}]), 'metrics[0] (calculate_dists): nowhere.pth: no such'),
    (plan(metrics=['calculate_psnrb']), 'crop_border must be a multiple of 8'),
    (plan(metrics=[{'type': 'FrechetDistance', 'features': 'resnet'}]), "features must be 'alexnet', 'vgg16'"),
    (plan(metrics=[{'type': 'FrechetDistance', 'reference': 'photos'}]), "unknown key 'reference'"),
    (plan(metrics=[{'type': 'calculate_psnr', 'name': 'y', 'better': 'more'}]), "better: must be one of 'higher', 'lower', got 'more'."),
    (plan(metrics=[{'type': 'calculate_psnr', 'name': 'y', 'better': 'lower'}]), '(calculate_psnr).better: higher is better for'),
])
def test_wrong_options_are_refused_in_one_line(run, options, message):
    code, _, err = run(options)
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith('error: ') and message in err


# spandrel

def test_without_spandrel_one_line_names_the_extra(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    code, _, err = run(plan({'name': 'peer', 'kind': 'spandrel', 'weights': 'peer.pth'}), '--limit', '1')
    assert code == 1
    assert "error: peer: kind spandrel needs the package spandrel: pip install 'ibmd_basicsr[peers]'." in err.splitlines()
    assert '| bicubic ' in (tmp_path / 'out/table.md').read_text()


def test_files_that_spandrel_reads(run, tmp_path):
    pytest.importorskip('spandrel')
    code, _, err = run(plan({'name': 'spandrel', 'kind': 'spandrel', 'weights': 'peer.pth', 'tile': 6, 'tile_pad': 4}, arch_row('arch')))
    assert code == 0, err
    for name in ('photo_0', 'photo_1'):
        pair = [cv2.imread(str(tmp_path / f'out/images/{row}/{name}.png')).astype(int) for row in ('spandrel', 'arch')]
        assert np.abs(pair[0] - pair[1]).max() <= 1
    a, b = ({r['row']: r for r in read_csv(tmp_path / 'out/summary.csv')}[row] for row in ('spandrel', 'arch'))
    assert a['parameters'] == b['parameters'] and float(a['gflops']) > float(b['gflops']) > 0


def test_windows_of_spandrels_networks(tmp_path):
    pytest.importorskip('spandrel')
    network = {'type': 'SwinIR', **ARCHS['SwinIR'], 'window_size': 8, 'img_size': 16}
    save_network(tmp_path / 'peer.pth', network)
    lq = torch.rand(1, 3, 19, 22)
    restorer = build_spandrel(weights=str(tmp_path / 'peer.pth'), scale=4, size_multiple=8)
    assert restorer.size_multiple == 8
    expected = build_arch(network=network, weights=str(tmp_path / 'peer.pth'), scale=4, size_multiple=8)(lq)
    torch.testing.assert_close(restorer(lq), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('change, message', [
    ('scale', 'SRVGG.* of scale 4, the comparison has scale 2.|Compact of scale 4, the comparison has scale 2.'),
    ('ending', r'must end in .pth, .ckpt, .safetensors for kind spandrel.'),
    ('code', 'spandrel cannot load it: .*shutil.rmtree'),
    ('unknown', 'spandrel cannot load it: '),
])
def test_files_that_spandrel_must_not_or_cannot_take(tmp_path, change, message):
    pytest.importorskip('spandrel')
    path = tmp_path / ('peer.pt' if change == 'ending' else 'peer.pth')
    save_network(path, COMPACT)
    if change == 'code':
        torch.save({'params': shutil.rmtree}, path)
    if change == 'unknown':
        torch.save({'w': torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=message):
        build_spandrel(weights=str(path), scale=2 if change == 'scale' else 4)


# ncnn

def test_files_that_ncnn_reads(run, tmp_path, restorations):
    _, net = upscaler(tmp_path / 'peer.param')
    options = plan(ncnn_row(), ncnn_row('tiled', tile=6, tile_pad=4), arch_row('arch'))
    code, _, err = run(options)
    assert code == 0, err
    for name in ('photo_0', 'photo_1'):
        expected = tensor2img(net(comparison_input(name)).clamp(0, 1))
        for row in ('peer', 'tiled'):
            image = cv2.imread(str(tmp_path / f'out/images/{row}/{name}.png'))
            assert np.abs(image.astype(int) - expected).max() <= 1  # a value at the edge of rounding may fall to the other side
    summary = {record['row']: record for record in read_csv(tmp_path / 'out/summary.csv')}
    digest = hashlib.sha256((tmp_path / 'peer.bin').read_bytes()).hexdigest()
    assert (summary['peer']['weights'], summary['peer']['sha256'], summary['peer']['kind']) == ('peer.bin', digest, 'ncnn')
    assert summary['peer']['gflops'] == '' and float(summary['arch']['gflops']) > 0 and summary['peer']['parameters'] == str(48 * 28)
    table = (tmp_path / 'out/table.md').read_text()
    assert f'`peer.bin` (sha256 {digest[:12]}...), 1,344 parameters' in table

    # weights and layers both count
    restorations.clear()
    assert run(options)[0] == 0 and restorations == []
    upscaler(tmp_path / 'peer.param', seed=1)
    assert run(options)[0] == 0 and restorations
    restorations.clear()
    (tmp_path / 'peer.param').write_text((tmp_path / 'peer.param').read_text().replace('conv', 'c'))
    assert run(options)[0] == 0 and restorations


def test_a_network_of_unknown_size_has_no_number(run, tmp_path):
    param = Path(upscaler(tmp_path / 'peer.param')[0])
    lines = param.read_text().replace('features output', 'features raw').replace('3 3\n', '4 4\n') + 'Exp power 1 1 raw output 0=-1.0\n'
    param.write_text(lines)
    code, _, err = run(plan(ncnn_row()), '--limit', '1')
    assert code == 0, err
    assert read_csv(tmp_path / 'out/summary.csv')[1]['parameters'] == ''
    assert 'None' not in (tmp_path / 'out/table.md').read_text() and (tmp_path / 'out/report.html').is_file()


def test_the_example_of_the_documentation_is_accepted():
    text = (REPOSITORY / 'docs/comparing.md').read_text()
    opt = yaml.safe_load(re.search(r'```yaml\n(.*?)```', text, re.DOTALL)[1])
    rows = read_rows(opt)
    assert {row.kind for row in rows} == set(ROW_KEYS) and set(KEYS) - set(opt) == {'dataset'}
    for row in rows:
        if row.kind == 'arch':
            build_network(row.options['network'])
    tiles = {row.name: (row.tile, row.tile_pad) for row in rows}
    assert tiles == {'bicubic': (0, 0), 'EDSR': (0, 0), 'SwinIR': (256, 32), 'HAT': (256, 32), 'SPAN': (0, 0), 'student': (0, 0)}
    documented = set(re.findall(r'`(\w+)`', text))
    assert documented >= set().union(*ROW_KEYS.values(), RESTORED_KEYS, ORIGIN_KEYS) and f'default {TILE_PAD}' in text


# several test sets, more metrics

SETS = [SR | {'name': 'first'}, SR | {'name': 'second', 'dataroot_gt': 'others'}]


def several(*rows, **changes):
    options = plan(*rows, datasets=SETS, **changes)
    del options['dataset']
    return options


def test_several_test_sets(run, tmp_path, restorations):
    make_photos(tmp_path / 'others', count=3, size=(48, 40), seed=5)
    options = several(arch_row(), metrics=['FrechetDistance', {'type': 'KernelDistance', 'name': 'kernel'}])
    code, out, err = run(options)
    assert code == 0, err
    assert restorations == [(13, 11)] * 3 + [(12, 10)] * 4  # a call to warm up for each size
    records = read_csv(tmp_path / 'out/results.csv')
    assert [(r['dataset'], r['row'], r['image']) for r in records if r['row'] == 'peer'] == [
        ('first', 'peer', 'photo_0'), ('first', 'peer', 'photo_1'), *(('second', 'peer', f'photo_{i}') for i in range(3))]
    table = (tmp_path / 'out/table.md').read_text()
    assert '## first\n' in table and '## second\n' in table and 'Means over 2 images of first, 3 images of second' in table
    assert 'FD-AlexNet ↓' in table and 'kernel ↓' in table and '`FrechetDistance`' in table
    summary = {(r['dataset'], r['row']): r for r in read_csv(tmp_path / 'out/summary.csv')}
    for name, folder, count in (('first', 'photos', 2), ('second', 'others', 3)):
        assert summary[name, 'peer']['images'] == str(count)
        restored = [cv2.imread(str(tmp_path / f'out/images/{name}/peer/photo_{i}.png')) for i in range(count)]
        metric = FrechetDistance(tmp_path / folder, device='cpu')
        for image in restored:
            metric.update(image)
        assert float(summary[name, 'peer']['FrechetDistance']) == pytest.approx(metric.compute(), rel=1e-6)
        assert (tmp_path / f'out/grid_{name}.png').is_file()
    sets = read_sets(tmp_path / 'out/sets.csv')
    assert list(sets) == ['FrechetDistance', 'kernel'] and list(sets['kernel']) == ['bicubic', 'peer']
    for metric, rows in sets.items():
        for row, (first, second) in rows.items():
            assert list(first) == ['0'] and list(second) == ['0', '1', '2', '3']  # nothing is left out of two images
            assert [first['0'], second['0']] == [pytest.approx(float(summary[name, row][metric])) for name in ('first', 'second')]
    assert not (tmp_path / 'out/grid.png').exists()

    restorations.clear()
    assert run(options)[0] == 0 and restorations == []
    (tmp_path / 'out/images/second/peer/photo_2.png').unlink()
    assert run(options)[0] == 0 and restorations == [(12, 10)] * 2


def test_a_row_that_fails_on_the_second_set_keeps_the_first(run, tmp_path, monkeypatch):
    make_photos(tmp_path / 'others', count=1, size=(48, 40), seed=5)
    original = PeerRestorer.__call__

    def call(self, lq, *arguments, **options):
        if lq.shape[-2:] == (12, 10):
            raise RuntimeError('out of memory')
        return original(self, lq, *arguments, **options)

    monkeypatch.setattr(PeerRestorer, '__call__', call)
    code, _, err = run(several(arch_row()))
    assert code == 1 and 'error: peer: out of memory' in err.splitlines()
    first, second = (tmp_path / 'out/table.md').read_text().split('## second')
    assert '| peer ' in first and '| peer ' not in second and '| bicubic ' in second and '**peer failed**: out of memory' in second


@pytest.mark.parametrize('sets, message', [
    ([SR], 'datasets[0].name: names a folder of images, got None.'),
    ([SETS[0], SETS[0]], "datasets: the name 'first' is given twice."),
    (SR, 'datasets: must be a list of blocks with a name and a type.'),
    ([SETS[0], SETS[1] | {'dataroot_gt': 'nowhere'}], 'nowhere: no such image folder'),
    ([{'name': 'x', 'type': 'Images'}], 'datasets[0] (x).type: must be one of '),
])
def test_wrong_test_sets_are_refused_in_one_line(run, sets, message):
    code, _, err = run(several() | {'datasets': sets})
    assert code == 2 and len(err.splitlines()) == 1 and message in err


def test_a_new_metric_is_measured_on_the_images_that_are_there(run, tmp_path, restorations):
    assert run(plan(arch_row()))[0] == 0
    before = {(r['row'], r['image']): r for r in read_csv(tmp_path / 'out/results.csv')}
    restorations.clear()
    luma = {'type': 'calculate_psnr', 'name': 'psnr_y', 'test_y_channel': True}
    code, out, _ = run(plan(arch_row(), metrics=[{'type': 'calculate_psnrb', 'crop_border': 8}, luma, 'FrechetDistance']))
    assert code == 0 and restorations == [] and 'PSNR-B dB ↑' in out and ' psnr_y ' in out
    after = read_csv(tmp_path / 'out/results.csv')
    for record in after:
        old = before[record['row'], record['image']]
        assert {key: record[key] for key in old} == old
        image, truth = (cv2.imread(str(tmp_path / path / f'{record["image"]}.png')) for path in (f'out/images/{record["row"]}', 'photos'))
        assert float(record['psnr_y']) == pytest.approx(calculate_metric({'img': image, 'img2': truth}, {
            'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': True}))
        assert float(record['psnrb']) > 0
    assert list(after[0]).index('texture_distance') < list(after[0]).index('psnrb') < list(after[0]).index('psnr_y')
    # another border: its own value alone is another one
    run(plan(arch_row(), metrics=[luma | {'crop_border': 0}]))
    changed = read_csv(tmp_path / 'out/results.csv')
    assert restorations == []
    assert all(new['psnr_y'] != old['psnr_y'] and new['psnr'] == old['psnr'] for new, old in zip(changed, after))


def test_distances_of_the_same_features_share_their_passes(tmp_path, monkeypatch):
    """Each image goes through AlexNet once, whatever the number of distances; their values are those of distances of their own."""
    rng = np.random.default_rng(0)
    truths, restored = ([rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(3)] for _ in range(2))
    files = [tmp_path / f'{number}.png' for number in range(3)]
    for file, image in zip(files, restored):
        cv2.imwrite(str(file), image)
    passes, forward = [], features.PooledFeatures.forward
    monkeypatch.setattr(features.PooledFeatures, 'forward', lambda net, x: passes.append(len(x)) or forward(net, x))
    shared = quality.SetQuality(truths, ['a', 'b', 'c'])
    for kind in ('FrechetDistance', 'KernelDistance'):
        metric = quality.Metric(key=kind, type=kind, title=kind, digits=4, better='lower', options={'device': 'cpu'}, of_sets=True)
        own = getattr(set_metrics, kind)(truths, device='cpu')
        passes.clear()
        value = shared.measure(metric, files)
        assert sum(passes) == (6 if kind == 'FrechetDistance' else 0)
        for image in restored:
            own.update(image)
        assert value == own.compute()
        others = getattr(set_metrics, kind)(truths[:1] + truths[2:], device='cpu')
        others.update(restored[0])
        others.update(restored[2])
        assert shared.leave_out(metric, files)[1] == others.compute()
        assert sum(passes) == (6 if kind == 'FrechetDistance' else 0) + 7  # those of `own` and `others`


@pytest.mark.parametrize('damage', ['missing', 'empty'])
@pytest.mark.parametrize('method', ['measure', 'leave_out'])
def test_a_picture_that_set_metrics_cannot_read_is_named(method, damage, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    files = [tmp_path / f'{name}.png' for name in 'abc']
    for file in files[::2]:
        cv2.imwrite(str(file), image)
    if damage == 'empty':
        files[1].write_bytes(b'')
    metric = quality.Metric(key='x', type='KernelDistance', title='x', digits=4, better='lower', options={'device': 'cpu'}, of_sets=True)
    with pytest.raises(DataError, match=f'^{files[1]}: cannot be read; delete it, and the same command makes it again.$'):
        getattr(quality.SetQuality([image] * 3, ['a', 'b', 'c']), method)(metric, files)


def test_set_metrics_need_two_images(run, tmp_path):
    assert run(plan(metrics=['FrechetDistance']), '--limit', '1')[0] == 0
    assert read_csv(tmp_path / 'out/summary.csv')[0]['FrechetDistance'] == ''


def test_metrics_know_their_files(tmp_path):
    shutil.copy(Path(peers.__file__).parents[1] / 'metrics/weights/alexnet_features_fp16.pth', tmp_path / 'a.pth')
    options = {'metrics': [{'type': 'FrechetDistance', 'weights': str(tmp_path / 'a.pth')}]}
    before = read_metrics(options, 0, 'cpu')[-1].fingerprint
    assert read_metrics(options, 0, 'cpu')[-1].fingerprint == before
    features = torch.load(tmp_path / 'a.pth')
    torch.save({name: value + 1e-3 for name, value in features.items()}, tmp_path / 'a.pth')
    assert read_metrics(options, 0, 'cpu')[-1].fingerprint != before
    with pytest.raises(OptionError, match='metrics'):
        read_metrics({'metrics': [3]}, 0, 'cpu')


def test_flops_of_a_bridge_are_those_of_the_dry_run_attention_included(tmp_path):
    make_photos(tmp_path / 'photos', count=1, size=(32, 32))
    jpeg = {'type': 'DegradedImageDataset', 'dataroot_gt': str(tmp_path / 'photos'),
            'degradation': {'type': 'jpeg', 'quality': 50, 'codec': 'libjpeg'}}
    make_teacher(tmp_path)
    row = {'name': 'teacher', 'kind': 'bridge', 'network': NETWORK, 'bridge': {'type': 'I2SB'}, 'weights': str(tmp_path / 'teacher.pth'),
           'sampler': {'type': 'ancestral', 'steps': 2}}
    options = {'name': 'tiny', 'scale': 1, 'output': 'out', 'dataset': jpeg, 'restorers': [row]}
    comparison = Comparison(options, read_rows(options), output=tmp_path / 'out', device=torch.device('cpu'))
    assert comparison.run() == {}
    forward = measure_network(NETWORK, 32).forward
    assert forward > measure_network(NETWORK | {'attention_resolutions': []}, 32).forward
    assert comparison.sets[0].records['teacher'][0]['gflops'] * 1e9 == pytest.approx(2 * forward)
