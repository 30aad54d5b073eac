"""Import of published files: each layout with a small network, the outputs of the source network, and whatever must be refused."""
import argparse
import os
import pickle
import time
import zipfile
from pathlib import PosixPath

import pytest
import torch
import yaml

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.checkpoints.architecture import derive_architecture
from ibmd_basicsr.checkpoints.state_dict import load_params, load_strictly
from ibmd_basicsr.cli.import_checkpoint import main, make_parser
from ibmd_basicsr.importing.choices import ImportChoices
from ibmd_basicsr.importing.published_import import import_published
from ibmd_basicsr.models.builders import build_restorer
from ibmd_basicsr.utils.errors import OptionError

TINY = dict(model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_head_channels=16)
HEADS = ['--num_head_channels', '16']
IMAGENET = dict(model_channels=256, channel_mult=(1, 1, 2, 2, 4, 4), num_res_blocks=2, attention_resolutions=(8, 16, 32))
E2H = dict(model_channels=192, channel_mult=(1, 2, 3, 4), num_res_blocks=3, attention_resolutions=(2, 4, 8))
PLACEHOLDERS = dict(attention_order='legacy', num_head_channels=64)


def source_network(seed=0, **changes):
    """Return a small network whose every weight counts, the zero-initialised ones too."""
    net = ADMUNet(**(TINY | changes))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.08 * torch.randn(p.shape, generator=g) + (1 if p.ndim == 1 else 0))
    return net.eval()


def i2sb_content(net, ema):
    """Return what I2SB writes to latest.pt: names with a prefix, the EMA as a list, optimiser and scheduler beside them."""
    optimizer = torch.optim.AdamW(net.parameters())
    return {'net': {f'diffusion_model.{k}': v for k, v in net.state_dict().items()},
            'ema': {'decay': 0.99, 'num_updates': 7, 'collected_params': None,
                    'shadow_params': [p.detach().clone() for p in ema.parameters()]},
            'optimizer': optimizer.state_dict(), 'sched': torch.optim.lr_scheduler.StepLR(optimizer, 1000, 0.99).state_dict()}


def ddbm_content(net):
    """Return what DDBM writes: views of two flat master parameters, attention weights with four dimensions."""
    state = net.state_dict()
    content = {}
    for group in ([k for k in state if state[k].ndim <= 1], [k for k in state if state[k].ndim > 1]):
        master = torch.nn.Parameter(torch.cat([state[k].flatten() for k in group]))
        for key, part in zip(group, master.split([state[k].numel() for k in group])):
            shape = state[key].shape + ((1,) if '.qkv.weight' in key or '.proj_out.weight' in key else ())
            content[key] = part.view(shape)
    return {key: content[key] for key in state}


def saved(content, path):
    torch.save(content, path)
    return path


def run(capsys, *arguments):
    """Run the command and return its exit code and what it printed, of which stderr must be one line at most."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert err.count('\n') == (0 if code == 0 else 1), err
    return code, out, err


def imported(capsys, *arguments):
    """Run the command, which must succeed, and return the printed blocks."""
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    return yaml.safe_load(out)


def refused(capsys, *arguments):
    """Run the command, which must refuse with one line, and return that line."""
    code, out, err = run(capsys, *arguments)
    assert code == 2 and err.startswith('error: ') and not out
    return err


def rebuilt(blocks, key=None):
    """Return the network that the printed blocks describe, with the weights that they name."""
    options = dict(blocks['network_g'])
    assert options.pop('type') == 'ADMUNet'
    net = ADMUNet(**options)
    path = blocks['path']['pretrain_network_g']
    load_strictly(net, load_params(path, key or blocks['path']['param_key_g']), path)
    return net.eval()


def output(net):
    g = torch.Generator().manual_seed(5)
    x, cond = torch.randn(2, 2, 3, 16, 16, generator=g)
    extra = {'cond': cond} if net.cond_channels else {}
    if net.num_classes:
        extra['y'] = torch.tensor([1, 3])
    return net(x, torch.tensor([3.0, 700.0]), **extra)


def assert_same_outputs(net, expected):
    with torch.no_grad():
        torch.testing.assert_close(output(net), output(expected), rtol=0, atol=1e-5)


# ---- the four families ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('cond_channels', [0, 3])
def test_i2sb(tmp_path, capsys, cond_channels):
    net, ema = source_network(1, cond_channels=cond_channels), source_network(2, cond_channels=cond_channels)
    blocks = imported(capsys, saved(i2sb_content(net, ema), tmp_path / 'latest.pt'), *HEADS)
    assert blocks['path'] == {'pretrain_network_g': str(tmp_path / 'latest.basicsr.pth'), 'param_key_g': 'params_ema',
                              'strict_load_g': True}
    assert blocks['bridge'] == {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3, 'ot_ode': False, 'conditional': cond_channels > 0}
    assert blocks['network_g']['attention_order'] == 'legacy'
    assert_same_outputs(rebuilt(blocks), ema)
    assert_same_outputs(rebuilt(blocks, 'params'), net)


def test_ddbm(tmp_path, capsys):
    net = source_network(cond_channels=3, attention_order='new')
    path = saved(ddbm_content(net), tmp_path / 'e2h_ema_0.9999_420000.pt')
    blocks = imported(capsys, path, *HEADS)
    assert blocks['network_g']['attention_order'] == 'new'
    assert blocks['network_g']['in_channels'] == blocks['network_g']['cond_channels'] == 3
    assert blocks['bridge'] == {'type': 'VP', 'beta_min': 0.1, 'beta_d': 2.0, 't_min': 0.0001, 'conditional': True}
    assert blocks['path']['pretrain_network_g'].endswith('/e2h_ema_0.9999_420000.basicsr.pth')
    assert_same_outputs(rebuilt(blocks), net)
    content = torch.load(blocks['path']['pretrain_network_g'], weights_only=True)
    assert list(content) == ['params_ema'] and list(content['params_ema']) == list(net.state_dict())
    for value in content['params_ema'].values():
        assert value.is_contiguous() and value.untyped_storage().nbytes() == 4 * value.numel() and not value.requires_grad
    blocks = imported(capsys, path, *HEADS, '--schedule', 've', '--overwrite')
    assert blocks['bridge'] == {'type': 'VE', 'sigma_max': 80.0, 'sigma_min': 0.002, 'conditional': True}


def test_a_wrong_order_would_be_seen(tmp_path, capsys):
    """What the tests above compare does depend on the order, and the flag does overrule the family."""
    net = source_network(cond_channels=3, attention_order='new')
    blocks = imported(capsys, saved(ddbm_content(net), tmp_path / 'a.pt'), *HEADS, '--attention_order', 'legacy')
    assert blocks['network_g']['attention_order'] == 'legacy'
    with torch.no_grad():
        assert (output(rebuilt(blocks)) - output(net)).abs().max() > 1e-3


def test_squeezed_ddbm_files_need_a_word(tmp_path, capsys):
    """I2SB's network exported flat and DBIM's form of a DDBM network have the same names and shapes."""
    net = source_network(cond_channels=3, attention_order='new')
    path = saved(net.state_dict(), tmp_path / 'a.pt')
    line = refused(capsys, path, *HEADS)
    assert '--attention_order legacy' in line and '--attention_order new' in line and not (tmp_path / 'a.basicsr.pth').exists()
    for words, kind in ((['--attention_order', 'new'], 'VP'), (['--family', 'dbim'], 'VP'), (['--family', 'ddbm'], 'VP')):
        blocks = imported(capsys, path, *HEADS, *words, '--overwrite')
        assert blocks['network_g']['attention_order'] == 'new' and blocks['bridge']['type'] == kind
        assert_same_outputs(rebuilt(blocks), net)
    blocks = imported(capsys, path, *HEADS, '--family', 'i2sb', '--overwrite')
    assert blocks['network_g']['attention_order'] == 'legacy' and blocks['bridge']['type'] == 'I2SB'


def test_dbim_inpainting(tmp_path, capsys):
    net = source_network(cond_channels=3, num_classes=10)
    blocks = imported(capsys, saved(net.state_dict(), tmp_path / 'a.pt'), *HEADS)
    assert blocks['network_g']['attention_order'] == 'legacy' and blocks['network_g']['num_classes'] == 10
    assert blocks['bridge'] == {'type': 'I2SB_DBIM', 'n_timestep': 1000, 'beta_max': 1.0, 'conditional': True}
    assert_same_outputs(rebuilt(blocks), net)


def test_adm(tmp_path, capsys):
    net = source_network(out_channels=6)
    path = saved(net.state_dict(), tmp_path / 'a.pt')
    blocks = imported(capsys, path, *HEADS)
    assert set(blocks) == {'network_g', 'path'} and blocks['network_g']['out_channels'] == 6
    assert blocks['path']['param_key_g'] == 'params'
    assert_same_outputs(rebuilt(blocks), net)

    blocks = imported(capsys, path, *HEADS, '--drop_sigma', '-o', tmp_path / 'b.pth')
    assert 'out_channels' not in blocks['network_g']
    with torch.no_grad():
        torch.testing.assert_close(output(rebuilt(blocks)), output(net)[:, :3], rtol=0, atol=1e-5)

    blocks = imported(capsys, path, *HEADS, '--drop_sigma', '--add_cond', 'zero', '-o', tmp_path / 'c.pth')
    assert blocks['network_g']['cond_channels'] == 3
    with torch.no_grad():
        torch.testing.assert_close(output(rebuilt(blocks)), output(net)[:, :3], rtol=0, atol=1e-5)
    blocks = imported(capsys, path, *HEADS, '--add_cond', 'duplicate', '-o', tmp_path / 'd.pth')
    entrance = rebuilt(blocks).input_blocks[0][0].weight
    assert torch.equal(entrance[:, :3], entrance[:, 3:]) and torch.equal(entrance[:, :3], net.input_blocks[0][0].weight)


def test_adm_networks_that_are_other_than_the_rest():
    """64x64 has the new order, 128x128 and the first upsampler four heads whatever the width: known by their shapes."""
    from ibmd_basicsr.checkpoints.published import Published
    from ibmd_basicsr.checkpoints.undetermined import choose_attention_order, choose_heads
    adm = Published('adm', '', {'params': {}})
    for options, order, heads in (
            (E2H, 'new', ('num_head_channels', 64)), (IMAGENET, 'legacy', ('num_head_channels', 64)),
            (IMAGENET | dict(channel_mult=(1, 1, 2, 3, 4)), 'legacy', ('num_heads', 4)),
            (IMAGENET | dict(model_channels=192), 'legacy', ('num_heads', 4))):
        assert choose_attention_order(adm, 'adm', options, None, '').value == order
        name, choice = choose_heads('adm', options, None, None)
        assert (name, choice.value) == heads
    assert choose_attention_order(adm, 'i2sb', E2H, None, '').value == 'legacy'


def test_heads_by_number(tmp_path, capsys):
    net = source_network(num_heads=2)
    blocks = imported(capsys, saved(net.state_dict(), tmp_path / 'a.pt'), '--num_heads', 2)
    assert blocks['network_g']['num_heads'] == 2 and 'num_head_channels' not in blocks['network_g']
    assert_same_outputs(rebuilt(blocks), net)


def test_prefixes_half_precision_and_old_files(tmp_path, capsys):
    net = source_network()
    path = tmp_path / 'a.ckpt'
    torch.save({f'module.{k}': v.half() for k, v in net.state_dict().items()}, path, _use_new_zipfile_serialization=False)
    blocks = imported(capsys, path, *HEADS, '--half')
    assert next(iter(load_params(tmp_path / 'a.basicsr.pth').values())).dtype == torch.float16
    with torch.no_grad():
        torch.testing.assert_close(output(rebuilt(blocks)), output(net), rtol=0, atol=0.02)
    flat = saved({f'module.diffusion_model.{k}': v for k, v in net.state_dict().items()}, tmp_path / 'b.pt')
    assert imported(capsys, flat, *HEADS)['bridge']['type'] == 'I2SB'


def test_compressed_archives_are_read_not_mapped(tmp_path, capsys):
    net = source_network()
    saved(net.state_dict(), tmp_path / 'a.pt')
    with zipfile.ZipFile(tmp_path / 'a.pt') as old, zipfile.ZipFile(tmp_path / 'b.pt', 'w', zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_same_outputs(rebuilt(imported(capsys, tmp_path / 'b.pt', *HEADS)), net)


# ---- the architecture from shapes -----------------------------------------------------------------------------------------

def shapes_of(**options):
    with torch.device('meta'):
        return {k: tuple(v.shape) for k, v in ADMUNet(**(PLACEHOLDERS | options)).state_dict().items()}


@pytest.mark.parametrize('options', [
    {}, dict(channel_mult=(1, 1, 1), attention_resolutions=(1, 4)), dict(num_res_blocks=3, attention_resolutions=()),
    dict(channel_mult=(0.5, 1, 3), attention_resolutions=(2, 4)), dict(use_scale_shift_norm=False), dict(resblock_updown=False),
    dict(resblock_updown=False, use_scale_shift_norm=False, channel_mult=(2, 1), num_res_blocks=2), dict(cond_channels=3),
    dict(out_channels=6), dict(cond_channels=3, out_channels=6, num_classes=7), dict(channel_mult=(1,), attention_resolutions=(1,)),
    dict(in_channels=1, cond_channels=1), dict(model_channels=48, channel_mult=(1, 7 / 3), attention_resolutions=())],
    ids=lambda options: ', '.join(f'{k}={v}' for k, v in options.items()) or 'tiny')
def test_architectures_are_read_off_their_shapes(options):
    options = TINY | options | dict(num_head_channels=16)
    shapes = shapes_of(**options)
    derived = derive_architecture(shapes, 'a.pt')
    for key, value in options.items():
        if key != 'num_head_channels':
            assert derived[key] == (list(value) if isinstance(value, tuple) else value), key
    rebuilt_shapes = shapes_of(**derived, num_head_channels=16)
    assert rebuilt_shapes == shapes and list(rebuilt_shapes) == list(shapes)


@pytest.mark.parametrize(('options', 'total'), [
    (IMAGENET, 552_807_171), (IMAGENET | dict(cond_channels=3), 552_814_083), (E2H | dict(cond_channels=3), 295_136_451),
    (IMAGENET | dict(cond_channels=3, num_classes=1000), 553_838_083)], ids=['I2SB', 'DIODE', 'e2h', 'DBIM inpainting'])
def test_the_official_networks(options, total):
    derived = derive_architecture(shapes_of(**options), 'a.pt')
    with torch.device('meta'):
        net = ADMUNet(**derived, num_head_channels=64)
    assert sum(p.numel() for p in net.parameters()) == total
    assert list(net.state_dict()) == list(shapes_of(**options)) == [name for name, _ in net.named_parameters()]


# ---- I2SB's settings ------------------------------------------------------------------------------------------------------

def write_settings(path, **changes):
    settings = argparse.Namespace(**(dict(
        name='inpaint', ckpt_path=PosixPath('results/inpaint'), beta_max=1.0, ot_ode=True, cond_x1=False, interval=500, t0=1e-4, T=1.0,
        add_x1_noise=False, corrupt='inpaint-center', gpu_ids=[0, 1], lr=5e-5, log_writer=None) | changes))
    path.write_bytes(pickle.dumps(settings))


def test_i2sb_settings_beside_the_file(tmp_path, capsys):
    net = source_network()
    path = saved(i2sb_content(net, net), tmp_path / 'latest.pt')
    write_settings(tmp_path / 'options.pkl')
    bridge = {'type': 'I2SB', 'n_timestep': 500, 'beta_max': 1.0, 'ot_ode': True, 'hole': 'noise', 'conditional': False}
    assert imported(capsys, path, *HEADS)['bridge'] == bridge
    assert imported(capsys, path, *HEADS, '--beta_max', '0.5', '--overwrite')['bridge'] == bridge | {'beta_max': 0.5}
    assert imported(capsys, path, *HEADS, '--options', 'none', '--overwrite')['bridge']['n_timestep'] == 1000
    write_settings(tmp_path / 'other.pkl', t0=0.01)
    code, out, _ = run(capsys, path, *HEADS, '--options', tmp_path / 'other.pkl', '--overwrite')
    assert code == 0 and 'trained with t0 = 0.01' in out
    for change, said in ((dict(cond_x1=True), 'cond_x1 is True'), (dict(beta_max='1.0'), "beta_max is '1.0'"),
                         (dict(interval=True), 'interval'), (dict(beta_max=-1.0), 'beta_max')):
        write_settings(tmp_path / 'options.pkl', **change)
        assert said in refused(capsys, path, *HEADS, '--overwrite')
    assert 'no such file' in refused(capsys, path, *HEADS, '--options', tmp_path / 'missing.pkl', '--overwrite')


class Evil:
    """Unpickling this object would create a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class PathOf:
    """Is pickled as a path with something else than strings for parts."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return PosixPath, self.parts


def test_hostile_settings_are_not_run(tmp_path, capsys):
    net = source_network()
    path = saved(i2sb_content(net, net), tmp_path / 'latest.pt')
    ran = tmp_path / 'ran'
    contents = [pickle.dumps(Evil(ran), protocol=p) for p in range(6)]
    contents += [pickle.dumps(argparse.Namespace(beta_max=Evil(ran))), b'', b'hello', pickle.dumps({'beta_max': 1}), b'\x80\x04N.',
                 pickle.dumps(argparse.Namespace(beta_max=1.0))[:-9], b'\x80\x02cargparse\nNamespace.__init__\n.', b'x' * 2**21,
                 b'cbuiltins\neval\n(S"1"\ntR.', b'\x80\x02cargparse\nNamespace\n}X\x01\x00\x00\x00aK\x01sb.']
    for content in contents:
        (tmp_path / 'options.pkl').write_bytes(content)
        assert 'options.pkl' in refused(capsys, path, *HEADS)
        assert not ran.exists() and not hasattr(argparse.Namespace, 'a')
    (tmp_path / 'options.pkl').write_bytes(contents[2])
    assert 'needs code to be run to be read (global posix.mkdir), refused' in refused(capsys, path, *HEADS)


@pytest.mark.parametrize('hide', [lambda bomb: argparse.Namespace(corrupt=bomb), lambda bomb: argparse.Namespace(root=PathOf(bomb)),
                                  lambda bomb: argparse.Namespace(T=10**5000)], ids=['value', 'path', 'number'])
def test_settings_that_would_never_be_printed(tmp_path, capsys, hide):
    """Tuples that hold one another twice, sixty deep: three hundred bytes, and 2^60 letters to print."""
    bomb = ()
    for _ in range(60):
        bomb = (bomb, bomb)
    net = source_network()
    path = saved(i2sb_content(net, net), tmp_path / 'latest.pt')
    (tmp_path / 'options.pkl').write_bytes(pickle.dumps(hide(bomb)))
    started = time.monotonic()
    assert 'options.pkl' in refused(capsys, path, *HEADS)
    assert time.monotonic() - started < 10


# ---- what is refused ------------------------------------------------------------------------------------------------------

def test_hostile_files_are_not_run(tmp_path, capsys):
    ran, path = tmp_path / 'ran', tmp_path / 'a.pt'
    state = source_network().state_dict()
    for content in (Evil(ran), {'net': Evil(ran)}, state | {'x': Evil(ran)}, {'net': state, 'ema': Evil(ran)}):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            assert 'needs code to be run to be read (global posix.mkdir), refused' in refused(capsys, path)
    saved(argparse.Namespace(a=1), path)
    assert '(global argparse.Namespace), refused' in refused(capsys, path)
    saved(torch.nn.Linear(2, 2), path)
    assert '(global torch.nn.modules.linear.Linear), refused' in refused(capsys, path)
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Evil(ran), protocol=protocol))
        assert 'a.pt' in refused(capsys, path)
    assert not ran.exists()


def test_damaged_files(tmp_path, capsys):
    path = saved(source_network().state_dict(), tmp_path / 'a.pt')
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content, said in ((b'', 'empty'), (b'not a checkpoint\n' * 9, 'a.pt'), (good[:len(good) // 2], 'a.pt'), (flipped, 'checksum'),
                          (b'<html>\n', 'no torch file'), (pickle.dumps({'a': 1}, protocol=4), 'a bare pickle')):
        path.write_bytes(content)
        assert said in refused(capsys, path, *HEADS)
    assert 'no such file' in refused(capsys, tmp_path / 'missing.pt')
    assert f'{tmp_path}: is a folder, name the file in it' in refused(capsys, tmp_path)


def without(state, *keys):
    return {k: v for k, v in state.items() if k not in keys}


QKV = 'middle_block.1.qkv.weight'


@pytest.mark.parametrize(('damage', 'said'), [
    (lambda s: without(s, QKV), f'1 missing ({QKV})'),
    (lambda s: without(s, 'time_embed.0.weight'), 'holds no network'),
    (lambda s: without(s, 'input_blocks.0.0.weight'), 'input_blocks.0.0.weight'),
    (lambda s: without(s, 'out.2.weight'), 'out.2.weight'),
    (lambda s: without(s, 'out.2.bias'), '1 missing (out.2.bias)'),
    (lambda s: without(s, *[k for k in s if k.startswith('input_blocks.1.')]), 'no input_blocks.1'),
    (lambda s: without(s, *[k for k in s if k.startswith('output_blocks.3.')]), 'differ in number'),
    (lambda s: without(s, *[k for k in s if k.startswith('output_blocks.1.2.')]), 'do not fit'),
    (lambda s: s | {'extra\nline\x1b[31m': torch.ones(1)}, '1 unknown'),
    (lambda s: s | {QKV: torch.ones(2, 2)}, f'1 of another shape ({QKV} (2, 2)'),
    (lambda s: s | {'out.2.weight': torch.ones(0, 32, 3, 3)}, 'out.2.weight'),
    (lambda s: s | {'out.2.bias': 3}, 'out.2.bias is a int'),
    (lambda s: s | {'out.2.bias': None}, 'out.2.bias is a NoneType'),
    (lambda s: s | {'out.2.bias': torch.ones(3, dtype=torch.int64)}, 'not of floating-point numbers'),
    (lambda s: s | {'out.2.bias': torch.ones(3).to_sparse()}, 'is a sparse tensor'),
    (lambda s: s | {'out.2.bias': torch.ones(3, device='meta')}, 'not in the file'),
    (lambda s: s | {'out.2.weight': torch.ones(1).expand(3, 10**6, 3, 3)}, 'not in the file'),
    (lambda s: s | {'out.2.bias': torch.full((3,), float('nan'))}, 'not finite'),
    (lambda s: s | {3: torch.ones(1)}, '3 in place of a name'),
    (lambda s: {}, 'is empty'),
    (lambda s: {'a': 1}, 'a is a int, not a tensor'),
    (lambda s: [1, 2], 'not a dictionary'),
    (lambda s: {'params_ema': s}, "is in BasicSR's form already (params_ema), there is nothing to import"),
    (lambda s: {'net': {}}, 'is empty'),
])
def test_wrong_files(tmp_path, capsys, damage, said):
    path = saved(damage(source_network().state_dict()), tmp_path / 'a.pt')
    line = refused(capsys, path, *HEADS)
    assert said in line and str(path) in line and '\x1b' not in line
    assert os.listdir(tmp_path) == ['a.pt']


@pytest.mark.parametrize(('damage', 'said'), [
    (lambda e: e['shadow_params'].pop(), 'the EMA list has 143 tensors, the network 144'),
    (lambda e: e['shadow_params'].reverse(), 'does not follow the order of the network: '),
    (lambda e: e['shadow_params'].__setitem__(3, torch.ones(5)), '1 of another shape (time_embed.2.bias (5,)'),
    (lambda e: e['shadow_params'].__setitem__(3, 'text'), 'ema: time_embed.2.bias is a str'),
    (lambda e: e.__setitem__('shadow_params', {'a': 1}), "no list 'shadow_params'"),
    (lambda e: e.clear(), "no list 'shadow_params'"),
])
def test_wrong_ema_lists(tmp_path, capsys, damage, said):
    net = source_network()
    content = i2sb_content(net, net)
    damage(content['ema'])
    assert said in refused(capsys, saved(content, tmp_path / 'latest.pt'), *HEADS)


def test_a_list_without_names_needs_the_order_of_the_network(tmp_path, capsys):
    net = source_network()
    content = i2sb_content(net, net)
    names = list(content['net'])
    names[5], names[7] = names[7], names[5]  # of one shape
    content['net'] = {name: content['net'][name] for name in names}
    assert 'not in the order of the network' in refused(capsys, saved(content, tmp_path / 'latest.pt'), *HEADS)
    del content['ema']
    blocks = imported(capsys, saved(content, tmp_path / 'latest.pt'), *HEADS)
    assert blocks['path']['param_key_g'] == 'params'
    assert_same_outputs(rebuilt(blocks), net)


def test_contradicting_evidence_needs_a_word(tmp_path, capsys):
    net = source_network()
    content = {'net': {f'diffusion_model.{k}': v for k, v in ddbm_content(net).items()}}
    assert 'say which it is' in refused(capsys, saved(content, tmp_path / 'latest.pt'), *HEADS)


def test_wrong_command_lines(tmp_path, capsys):
    net = source_network()
    path = saved(net.state_dict(), tmp_path / 'a.pt')
    assert 'must divide the 64 channels' in refused(capsys, path, '--num_head_channels', 48)
    assert 'no learned variance' in refused(capsys, path, *HEADS, '--drop_sigma')
    assert 'dropout' in refused(capsys, path, *HEADS, '--dropout', 2)
    assert 'at most 2 can be the condition, got 3' in refused(capsys, path, *HEADS, '--cond_channels', 3)
    assert 'is the file to import' in refused(capsys, path, *HEADS, '-o', path, '--overwrite')
    assert 'folder does not exist' in refused(capsys, path, *HEADS, '-o', tmp_path / 'missing' / 'b.pth')
    imported(capsys, path, *HEADS)
    before = (tmp_path / 'a.basicsr.pth').read_bytes()
    assert '--overwrite replaces it' in refused(capsys, path, *HEADS)
    assert (tmp_path / 'a.basicsr.pth').read_bytes() == before
    assert "is in BasicSR's form already" in refused(capsys, tmp_path / 'a.basicsr.pth')
    adm = saved(source_network(out_channels=6).state_dict(), tmp_path / 'c.pt')
    assert '--beta_max has no meaning for this file, whose family is adm' in refused(capsys, adm, *HEADS, '--beta_max', 1)
    i2sb = saved(i2sb_content(net, net), tmp_path / 'd.pt')
    assert '--schedule has no meaning for this file, whose family is i2sb' in refused(capsys, i2sb, *HEADS, '--schedule', 'vp')
    wide = saved(source_network(cond_channels=3).state_dict(), tmp_path / 'b.pt')
    assert 'already' in refused(capsys, wide, *HEADS, '--family', 'i2sb', '--add_cond', 'zero')
    with pytest.raises(SystemExit) as caught:
        main([str(path), '--num_head_channels', '0'])
    assert caught.value.code == 2


@pytest.mark.parametrize('layout', ['i2sb', 'ddbm', 'dbim'])
def test_printed_blocks_build_a_restorer(tmp_path, capsys, layout):
    net = source_network(cond_channels=0 if layout == 'i2sb' else 3, attention_order='new' if layout == 'ddbm' else 'legacy',
                         num_classes=5 if layout == 'dbim' else None)
    content = {'i2sb': i2sb_content(net, net), 'ddbm': ddbm_content(net), 'dbim': net.state_dict()}[layout]
    blocks = imported(capsys, saved(content, tmp_path / 'a.pt'), *HEADS)
    restorer = build_restorer(network=blocks['network_g'], bridge=blocks['bridge'], weights=blocks['path']['pretrain_network_g'],
                              param_key=blocks['path']['param_key_g'])
    # in the layout of the source: sums in another order differ in their last digits
    assert_same_outputs(restorer.net.to(memory_format=torch.contiguous_format), net)


def test_reasons_are_printed(tmp_path, capsys):
    net = source_network()
    folder = tmp_path / 'a: "b" #c'
    folder.mkdir()
    code, out, _ = run(capsys, saved(i2sb_content(net, net), folder / 'latest.pt'), *HEADS)
    assert_same_outputs(rebuilt(yaml.safe_load(out)), net)
    assert 'attention order legacy: the family i2sb uses it' in out
    assert 'beta_max: 0.3  # a choice, the file does not show it' in out
    assert f'{sum(p.numel() for p in net.parameters()):,} parameters in {len(net.state_dict())} tensors' in out


# ---- from Python ----------------------------------------------------------------------------------------------------------

def test_python_gets_what_the_command_writes_and_prints(tmp_path, capsys):
    net, ema = source_network(1), source_network(2)
    file = saved(i2sb_content(net, ema), tmp_path / 'latest.pt')
    blocks = imported(capsys, file, *HEADS, '--half', '--ot_ode')
    found = import_published(file, ImportChoices(num_head_channels=int(HEADS[1]), half=True, ot_ode=True))
    assert (found.family, found.param_key) == ('i2sb', 'params_ema') and found.bridge == blocks['bridge']
    printed = {key: value for key, value in blocks['network_g'].items() if key != 'type'}
    assert printed.items() <= found.network.items()
    assert found.bridge_reasons['ot_ode'] == 'as given on the command line' and 'beta_max' in found.bridge_reasons
    found.save(tmp_path / 'ours.pth')
    for key in ('params', 'params_ema'):
        theirs, ours = (load_params(path, key) for path in (blocks['path']['pretrain_network_g'], tmp_path / 'ours.pth'))
        assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert {value.dtype for value in ours.values()} == {torch.float16}


def test_choices_are_the_options_of_the_command():
    given = vars(make_parser().parse_args(['FILE']))
    assert {name: given[name] for name in given.keys() - {'file', 'output', 'overwrite'}} == vars(ImportChoices())


@pytest.mark.parametrize('choices, message', [
    ({'family': 'edm'}, "family must be one of 'i2sb', 'adm', 'ddbm', 'dbim', got 'edm'"),
    ({'attention_order': 'old'}, "attention_order must be one of 'legacy', 'new', got 'old'"),
    ({'add_cond': True}, "add_cond must be one of 'zero', 'duplicate', got True"),
    ({'schedule': 'VP'}, "schedule must be one of 'vp', 've', got 'VP'"),
    ({'num_heads': 4, 'num_head_channels': 64}, 'num_head_channels and num_heads: give one of them'),
])
def test_choices_that_there_are_not_are_refused(choices, message):
    with pytest.raises(OptionError, match=message):
        ImportChoices(**choices)
