"""ADMUNet: published totals and names, attention orders against plain einsum, patching, extra channels."""
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ibmd_basicsr.archs.adm_layers import AttentionBlock, ResBlock, timestep_embedding
from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.models.network_cost import CPU_ATTENTION

TINY = dict(model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_head_channels=16)
IMAGENET = dict(model_channels=256, channel_mult=(1, 1, 2, 2, 4, 4), num_res_blocks=2, attention_resolutions=(8, 16, 32),
                num_head_channels=64)
E2H = dict(model_channels=192, channel_mult=(1, 2, 3, 4), num_res_blocks=3, attention_resolutions=(2, 4, 8), num_head_channels=64,
           cond_channels=3, attention_order='new')


def randomised(net, seed=0):
    """Give every parameter a value (the zero-initialised ones too), so that all paths count."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.08 * torch.randn(p.shape, generator=g) + (1 if p.ndim == 1 else 0))
    return net.eval()


@pytest.mark.parametrize(('options', 'parameters', 'tensors'), [
    (IMAGENET, 552_807_171, 566),  # I2SB
    (IMAGENET | dict(cond_channels=3), 552_814_083, 566),  # I2SB conditional, DDBM DIODE
    (IMAGENET | dict(out_channels=6), 552_814_086, 566),  # ADM with learned sigma
    (E2H, 295_136_451, 540),  # DDBM edges to handbags
    (IMAGENET | dict(cond_channels=3, num_classes=1000), 553_838_083, 567),  # DBIM inpainting
])
def test_published_totals(options, parameters, tensors):
    with torch.device('meta'):
        net = ADMUNet(**options)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors
    assert not list(net.buffers())


def test_names_and_registration_order_of_the_full_network():
    with torch.device('meta'):
        net = ADMUNet(**IMAGENET)
    names = [name for name, _ in net.named_parameters()]
    assert names == list(net.state_dict())
    assert names[:14] == [
        'time_embed.0.weight', 'time_embed.0.bias', 'time_embed.2.weight', 'time_embed.2.bias', 'input_blocks.0.0.weight',
        'input_blocks.0.0.bias', 'input_blocks.1.0.in_layers.0.weight', 'input_blocks.1.0.in_layers.0.bias',
        'input_blocks.1.0.in_layers.2.weight', 'input_blocks.1.0.in_layers.2.bias', 'input_blocks.1.0.emb_layers.1.weight',
        'input_blocks.1.0.emb_layers.1.bias', 'input_blocks.1.0.out_layers.0.weight', 'input_blocks.1.0.out_layers.0.bias']
    assert names[-4:] == ['out.0.weight', 'out.0.bias', 'out.2.weight', 'out.2.bias']
    attention = sorted({int(n.split('.')[1]) for n in names if n.startswith('input_blocks') and '.qkv.' in n})
    assert attention == [10, 11, 13, 14, 16, 17]
    assert sorted({int(n.split('.')[1]) for n in names if n.startswith('output_blocks') and '.1.qkv.' in n}) == list(range(9))
    ups = {n.rsplit('.in_layers', 1)[0] for n in names if n.startswith('output_blocks') and '.in_layers.' in n and '.0.in_layers' not in n}
    assert ups == {'output_blocks.2.2', 'output_blocks.5.2', 'output_blocks.8.2', 'output_blocks.11.1', 'output_blocks.14.1'}
    state = net.state_dict()
    cat_inputs = [state[f'output_blocks.{i}.0.in_layers.0.weight'].shape[0] for i in range(18)]
    assert cat_inputs == [2048] * 5 + [1536] * 2 + [1024] * 4 + [768] * 2 + [512] * 5
    assert state['input_blocks.10.1.qkv.weight'].shape == (1536, 512, 1)
    block = [n for n in names if n.startswith('input_blocks.10.1')]
    assert [n.split('.', 3)[3] for n in block] == ['norm.weight', 'norm.bias', 'qkv.weight', 'qkv.bias', 'proj_out.weight', 'proj_out.bias']


@pytest.mark.parametrize('order', ['legacy', 'new'])
def test_attention_order_against_plain_softmax(order):
    """Both orders, head by head, from their definition: legacy splits heads before q, k, v; new splits q, k, v first."""
    block = randomised(AttentionBlock(32, num_head_channels=8, order=order).double())
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64)
    flat = x.reshape(2, 32, 15)
    qkv = block.qkv(F.group_norm(flat, 32, block.norm.weight, block.norm.bias))
    heads = []
    for h in range(4):
        if order == 'legacy':
            q, k, v = qkv[:, 24 * h:24 * h + 8], qkv[:, 24 * h + 8:24 * h + 16], qkv[:, 24 * h + 16:24 * h + 24]
        else:
            q, k, v = (qkv[:, 32 * i + 8 * h:32 * i + 8 * h + 8] for i in range(3))
        weight = torch.softmax(torch.einsum('bct,bcs->bts', q, k) / 8**0.5, dim=-1)
        heads.append(torch.einsum('bts,bcs->bct', weight, v))
    expected = (flat + block.proj_out(torch.cat(heads, 1))).reshape(x.shape)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


def test_the_two_orders_differ_although_names_and_shapes_agree():
    legacy, new = (randomised(ADMUNet(attention_order=o, **TINY)) for o in ('legacy', 'new'))
    new.load_state_dict(legacy.state_dict())
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500.0])
    assert (legacy(x, t) - new(x, t)).abs().max() > 1e-3


def test_timestep_embedding_has_cosines_first():
    e = timestep_embedding(torch.tensor([0.0, 2.0]), 7)
    assert e.shape == (2, 7)
    assert e[0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    frequencies = [1.0, 1e4**(-1 / 3), 1e4**(-2 / 3)]
    expected = [torch.tensor(2 * f).cos().item() for f in frequencies] + [torch.tensor(2 * f).sin().item() for f in frequencies] + [0]
    assert e[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_heads_by_number_instead_of_width():
    """64 channels in 4 heads are heads of 16; a fixed number makes heads as wide as their level allows."""
    by_width, by_number = (randomised(ADMUNet(**(TINY | options))) for options in (dict(num_head_channels=16), dict(num_heads=4)))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500.0])
    assert torch.equal(by_width(x, t), by_number(x, t))
    net = ADMUNet(**(TINY | dict(attention_resolutions=(1, 2), num_heads=4)))
    assert {block.num_heads for block in net.modules() if isinstance(block, AttentionBlock)} == {4}


@pytest.mark.parametrize('options', [
    {}, dict(use_scale_shift_norm=False), dict(resblock_updown=False), dict(patch_size=2), dict(num_classes=5),
    dict(cond_channels=3, noise_channels=1), dict(channel_mult=(1, 2, 2), num_res_blocks=2)])
def test_every_variant_runs_and_every_parameter_learns(options):
    net = randomised(ADMUNet(**(TINY | options)))
    x = torch.randn(2, 3, 16, 16)
    extra = {'cond': torch.randn(2, 3, 16, 16), 'z': torch.randn(2, 1, 16, 16)} if 'cond_channels' in options else {}
    if 'num_classes' in options:
        extra['y'] = torch.tensor([1, 3])
    out = net(x, torch.tensor([3.0, 700.0]), **extra)
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    silent = [n for n, p in net.named_parameters() if p.grad.abs().max() == 0]
    assert not silent, silent


def test_plain_add_and_strided_names():
    state = ADMUNet(**(TINY | dict(use_scale_shift_norm=False, resblock_updown=False))).state_dict()
    assert state['input_blocks.1.0.emb_layers.1.weight'].shape == (32, 128)
    assert 'input_blocks.2.0.op.weight' in state and 'output_blocks.1.2.conv.weight' in state


def test_a_new_network_returns_zero():
    """The last convolution starts at zero: x0_hat of a fresh I2SB network is x_t."""
    assert ADMUNet(**TINY)(torch.randn(1, 3, 8, 8), torch.tensor([1.0])).abs().max() == 0


@pytest.mark.parametrize('patch_size', [1, 2])
def test_extra_channels_start_silent(patch_size):
    """A network widened by z and x_T computes what the narrow one does, whatever z and x_T are."""
    from ibmd_basicsr.checkpoints.state_dict import load_strictly, widen_entrance
    narrow = randomised(ADMUNet(patch_size=patch_size, **TINY))
    wide = ADMUNet(patch_size=patch_size, cond_channels=3, noise_channels=3, **TINY).eval()
    load_strictly(wide, widen_entrance(narrow.state_dict(), wide), 'narrow')
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 990.0])
    torch.testing.assert_close(wide(x, t, cond=torch.randn_like(x), z=torch.randn_like(x)), narrow(x, t), rtol=0, atol=1e-5)
    fresh = ADMUNet(patch_size=patch_size, noise_channels=3, **TINY).input_blocks[0][0].weight
    assert fresh[:, 3 * patch_size**2:].abs().max() == 0 and fresh[:, :3 * patch_size**2].abs().min() > 0


@pytest.mark.parametrize('mode', ['train', 'eval', 'frozen'])
@pytest.mark.parametrize('options', [
    {}, dict(use_scale_shift_norm=False, resblock_updown=False), dict(patch_size=2, dropout=0.3), dict(channel_mult=(1, 2, 2))])
def test_checkpoints_change_nothing_but_what_is_kept(monkeypatch, options, mode):
    """Output and gradients bit for bit; the blocks of level 1 run twice, everything else once."""
    calls = Counter()
    for kind, method, plain in ((ResBlock, '_forward', ResBlock._forward), (AttentionBlock, 'forward', AttentionBlock.forward)):
        def counted(self, *args, plain=plain):
            calls[self] += 1
            return plain(self, *args)
        monkeypatch.setattr(kind, method, counted)
    results = []
    for levels in ((), (1,)):
        net = randomised(ADMUNet(checkpoint_levels=levels, **(TINY | options))).train(mode == 'train').requires_grad_(mode != 'frozen')
        torch.manual_seed(0)
        x = torch.randn(2, 3, 16, 16, requires_grad=True)
        out = net(x, torch.tensor([3.0, 700.0]))
        out.square().mean().backward()
        results.append([out, x.grad, torch.rand(1), *(p.grad for p in net.parameters() if mode != 'frozen')])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    twice = {block for block in net.modules() if isinstance(block, ResBlock) and block.recompute}
    assert {block: calls[block] for block in net.modules() if isinstance(block, (ResBlock, AttentionBlock))} == {
        block: 1 + (block in twice) for block in net.modules() if isinstance(block, (ResBlock, AttentionBlock))}
    # 1 and a shrinking one at the entrance, 2 and a growing one at the exit
    assert len(twice) == (5 if options.get('resblock_updown', True) else 3)
    with torch.no_grad():
        calls.clear()
        net(x, torch.tensor([3.0, 700.0]))
    assert set(calls.values()) == {1}


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: ADMUNet(checkpoint_levels=(1, 4), **TINY), r'checkpoint_levels must be .* out of \[1, 2\], got \(1, 4\)'),
    (lambda: ADMUNet(checkpoint_levels=1, **TINY), 'checkpoint_levels must be .* got 1'),
    (lambda: ADMUNet(**(TINY | dict(num_head_channels=24))), 'must divide the 64 channels .* got 24'),
    (lambda: ADMUNet(**(TINY | dict(num_heads=5))), 'num_heads must divide the 64 channels .* got 5'),
    (lambda: ADMUNet(**(TINY | dict(attention_order='flash'))), "one of .*'flash'"),
    (lambda: ADMUNet(**(TINY | dict(patch_size=0))), 'patch_size must be an integer of at least 1, got 0'),
    (lambda: ADMUNet(**TINY)(torch.zeros(1, 3, 9, 8), torch.zeros(1)), r'multiples of 2, got \(9, 8\)'),
    (lambda: ADMUNet(**TINY)(torch.zeros(1, 3, 8, 8), torch.zeros(1), z=torch.zeros(1, 3, 8, 8)), 'z must have 0 channels, got 3'),
    (lambda: ADMUNet(noise_channels=3, **TINY)(torch.zeros(1, 3, 8, 8), torch.zeros(1)), 'z must have 3 channels, got 0'),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('order', ['legacy', 'new'])
def test_attention_never_writes_out_its_weights(order, images):
    """For an image of a megapixel they would fill 4 GiB; torch has kernels without them, for contiguous heads alone."""
    net = ADMUNet(attention_order=order, **TINY)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        net(torch.rand(images, 3, 16, 16), torch.ones(images)).sum().backward()
    kernels = {str(operator) for operator in counter.get_flop_counts()['Global']}
    assert not [name for name in kernels if 'bmm' in name]
    assert len([name for name in kernels if 'flash_attention_for_cpu' in name]) == 2  # and its backward
