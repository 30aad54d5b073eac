"""Networks in the format of ncnn give what the same networks give in torch; broken files are named in one line."""
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ncnn_files import enlarger, upscaler, write_network

from ibmd_basicsr.reporting.ncnn_peer import Layer, build_ncnn, count_parameters, read_layers
from ibmd_basicsr.utils.errors import CheckpointError, OptionError


def enlarged(x, scale):
    return F.interpolate(x, scale_factor=scale, mode='nearest')


def test_equals_the_network_in_torch(tmp_path):
    param, net = upscaler(tmp_path / 'peer.param')
    restorer = build_ncnn(weights=param, scale=4)
    lq = torch.rand(2, 3, 11, 14)
    torch.testing.assert_close(restorer(lq), net(lq).clamp(0, 1), atol=1e-5, rtol=0)
    assert restorer.parameters == sum(p.numel() for p in net.parameters()) == 48 * 28
    assert restorer.calls == 1 and not restorer.in_torch and restorer.size_multiple == 1
    assert restorer(torch.rand(1, 3, 1, 1)).shape == (1, 3, 4, 4)


def test_order_of_channels_and_range(tmp_path):
    param, net = upscaler(tmp_path / 'peer.param')
    lq = torch.rand(1, 3, 8, 9)
    expected = (net(lq.flip(1)).flip(1)).clamp(0, 1)
    torch.testing.assert_close(build_ncnn(weights=param, channels='BGR', scale=4)(lq), expected, atol=1e-5, rtol=0)
    expected = ((net(2 * lq - 1) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(build_ncnn(weights=param, input_range=[-1, 1], scale=4)(lq), expected, atol=1e-5, rtol=0)


def test_a_network_of_scale_2_is_called_twice_for_scale_4(tmp_path):
    param, net = upscaler(tmp_path / 'peer.param', 2)
    restorer = build_ncnn(weights=param, network_scale=2, scale=4)
    lq = torch.rand(1, 3, 7, 6)
    torch.testing.assert_close(restorer(lq), net(net(lq).clamp(0, 1)).clamp(0, 1), atol=1e-5, rtol=0)
    assert restorer.calls == 2


def test_what_is_too_large_is_averaged_down(tmp_path):
    param, net = upscaler(tmp_path / 'peer.param', 2)
    lq = torch.rand(1, 3, 7, 6)
    restored = build_ncnn(weights=param, network_scale=2, scale=1)(lq)
    torch.testing.assert_close(restored, F.avg_pool2d(net(lq), 2).clamp(0, 1), atol=1e-5, rtol=0)


def test_borders_that_a_network_eats_are_added(tmp_path):
    param, net = upscaler(tmp_path / 'peer.param', pad=0)
    lq = torch.rand(1, 3, 7, 6)
    expected = net(F.pad(lq, (1, 1, 1, 1), mode='replicate')).clamp(0, 1)
    torch.testing.assert_close(build_ncnn(weights=param, padding=1, scale=4)(lq), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r'the network returns \(3, 20, 16\) for \(3, 7, 6\), scale 4 asks for \(3, 28, 24\)'):
        build_ncnn(weights=param, scale=4)(lq)


def test_blobs_are_found_or_named(tmp_path):
    lines = ['Input in 0 1 data', 'Split s 1 2 data a b',
             'Interp two 1 1 a twice 0=1 1=2.0 2=2.0', 'Interp three 1 1 b thrice 0=1 1=3.0 2=3.0']
    param = write_network(tmp_path / 'peer.param', lines)
    lq = torch.rand(1, 3, 5, 4)
    with pytest.raises(OptionError, match='2 blobs may be the output: twice, thrice. Name one as output.'):
        build_ncnn(weights=param, scale=2)
    for name, scale in (('twice', 2), ('thrice', 3)):
        torch.testing.assert_close(build_ncnn(weights=param, output=name, input='data', scale=scale)(lq), enlarged(lq, scale))
    with pytest.raises(OptionError, match="no blob 'result' for output; it has data, a, b, twice, thrice"):
        build_ncnn(weights=param, output='result', scale=2)
    with pytest.raises(OptionError, match="no blob 'lr' for input"):
        build_ncnn(weights=param, input='lr', output='twice', scale=2)
    with pytest.raises(ValueError, match=r'the network returns \(3, 15, 12\) for \(3, 5, 4\), scale 2 asks for'):
        build_ncnn(weights=param, output='thrice', scale=2)(lq)


def test_parameters_are_counted_where_all_layers_are_known(tmp_path):
    lines = ['Input in 0 1 data', 'Convolution c 1 1 data a 0=8 1=3 4=1 5=1 6=216', 'PReLU p 1 1 a b 0=8',
             'Deconvolution d 1 1 b c 0=3 1=2 3=2 5=0 6=96', 'InnerProduct i 1 1 c e 0=5 1=1 2=60', 'Scale s 2 1 c e f 0=-233']
    layers = read_layers(write_network(tmp_path / 'peer.param', lines))
    assert layers[1] == Layer('Convolution', ('data',), ('a',), {0: '8', 1: '3', 4: '1', 5: '1', 6: '216'})
    assert count_parameters(layers) == 216 + 8 + 8 + 96 + 65
    for unknown in (Layer('LSTM', ('f',), ('g',), {}), Layer('Scale', ('f',), ('g',), {0: '3'}),
                    Layer('Convolution', ('f', 'w'), ('g',), {0: '3', 6: '0'})):  # whose weights another layer makes
        assert count_parameters([*layers, unknown]) is None


@pytest.mark.parametrize('change, message', [
    ('ending', r'peer.txt: must end in .param for kind ncnn'),
    ('no bin', r'peer.bin: no such file; kind ncnn needs it beside peer.param.'),
    ('short', r'peer.bin: ncnn cannot read it: cut short, or of another network than peer.param.'),
    ('magic', r'peer.param: not a text in the format of ncnn: the first line is not its magic number.'),
    ('words', r'peer.param: not a text in the format of ncnn: a layer of 2 words.'),
    ('binary', r'peer.param: not a text in the format of ncnn: '),
    ('layer', r'peer.param: ncnn cannot read it, or lacks one of its layers.'),
])
def test_files_that_ncnn_cannot_take(tmp_path, change, message):
    path, _ = upscaler(tmp_path / 'peer.param')
    path = Path(path)
    text = path.read_text()
    if change == 'ending':
        path = path.rename(tmp_path / 'peer.txt')
    elif change == 'no bin':
        path.with_suffix('.bin').unlink()
    elif change == 'short':
        path.with_suffix('.bin').write_bytes(path.with_suffix('.bin').read_bytes()[:500])
    elif change == 'magic':
        path.write_text(text.replace('7767517', '1'))
    elif change == 'words':
        path.write_text(text + 'Split s\n')
    elif change == 'binary':
        path.write_bytes(bytes(range(128, 256)))
    elif change == 'layer':
        path.write_text(text.replace('PixelShuffle', 'PixelSort'))
    with pytest.raises(CheckpointError, match=message) as error:
        build_ncnn(weights=str(path), scale=4)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('network_scale, scale', [(1, 4), (3, 4), (2, 3)])
def test_scales_that_cannot_be_reached(tmp_path, network_scale, scale):
    param = enlarger(tmp_path / 'peer.param', network_scale)
    with pytest.raises(OptionError, match=f'a network of scale {network_scale} does not lead to scale {scale}.'):
        build_ncnn(weights=param, network_scale=network_scale, scale=scale)


def test_without_ncnn_one_line_names_the_extra(tmp_path, monkeypatch):
    param = enlarger(tmp_path / 'peer.param', 4)
    monkeypatch.setitem(sys.modules, 'ncnn', None)
    with pytest.raises(OptionError, match=r"kind ncnn needs the package ncnn: pip install 'ibmd_basicsr\[peers\]'."):
        build_ncnn(weights=param, scale=4)
