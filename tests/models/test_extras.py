"""Losses against clean images and a discriminator: their gradients, who learns when, what is saved, what is refused."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import batch, build, hold_still, same, weights
from tiny import DISCRIMINATOR, GAN, options, parsed

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.checkpoints.lpips_network import ALEXNET_FEATURES, build_lpips
from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise


def charbonnier(x, gt):
    return ((x - gt)**2 + 1e-12).sqrt().mean()


def by_lpips(x, gt):
    return build_lpips('alex', ALEXNET_FEATURES)(2 * x - 1, 2 * gt - 1).mean()


EXTRAS = [
    ('pixel_opt', {'type': 'L1Loss', 'loss_weight': 0.3}, F.l1_loss),
    ('pixel_opt', {'type': 'MSELoss', 'loss_weight': 2.0}, F.mse_loss),
    ('pixel_opt', {'type': 'CharbonnierLoss', 'loss_weight': 0.3}, charbonnier),
    ('perceptual_opt', {'type': 'LPIPSLoss', 'net': 'alex', 'loss_weight': 0.7}, by_lpips),
    ('gan_opt', {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.5}, 'softplus'),
    ('gan_opt', {'type': 'GANLoss', 'gan_type': 'hinge', 'loss_weight': 0.5}, 'minus'),
]
TERMS = {'pixel_opt': 'l_g_pix', 'perceptual_opt': 'l_g_percep', 'gan_opt': 'l_g_gan'}


def student_gradient(model, loss_of):
    """Return loss and gradient of the student."""
    model._let_learn(model.net_g)
    loss = loss_of(PerImageNoise.for_training(3, 3, batch=2))
    return loss.detach(), torch.autograd.grad(loss, list(model.net_g.parameters()))


@pytest.mark.parametrize(('block', 'loss', 'formula'), EXTRAS, ids=[loss['type'] + loss.get('gan_type', '') for _, loss, _ in EXTRAS])
def test_an_extra_adds_its_weight_times_its_gradient(world, block, loss, formula):
    changes = GAN if block == 'gan_opt' else {}
    model = build(world, 'IBMDModel', **changes | {f'train__{block}': loss})
    with torch.no_grad():  # so that the distillation's own gradient is not zero
        for p in model.net_bridge.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model.feed_data(batch(size=16))
    if model.net_d is not None:
        hold_still(model.net_d)
    total, got = student_gradient(model, lambda noise: model._student_loss(noise, 3))
    extras, model.extras = model.extras, None
    own, plain = student_gradient(model, lambda noise: model._student_loss(noise, 3))
    model.extras = extras

    def extra(noise):
        image = (model._student_pass(model.net_g, noise, 3).x_0 + 1) / 2
        if block == 'gan_opt':
            scores = model.net_d(image)
            return loss['loss_weight'] * (F.softplus(-scores).mean() if formula == 'softplus' else -scores.mean())
        return loss['loss_weight'] * formula(image, model.gt)

    value, expected = student_gradient(model, extra)
    torch.testing.assert_close(total - own, value, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(model._terms[TERMS[block]], value)
    torch.testing.assert_close(model._terms['l_g_ibmd'], own)
    size = max(g.abs().max().item() for g in expected)
    assert size > 1e-7 and max(g.abs().max() for g in plain) > 1e-6
    for with_it, without, one in zip(got, plain, expected, strict=True):
        torch.testing.assert_close(with_it - without, one, rtol=1e-3, atol=1e-4 * size + 1e-8)


def test_extras_add_up_and_name_their_terms(world):
    both = {'train__pixel_opt': {'type': 'L1Loss', 'loss_weight': 0.1}, 'train__perceptual_opt': {'type': 'LPIPSLoss', 'net': 'alex'}}
    model = build(world, 'IBMDModel', **GAN, **both)
    model.feed_data(batch(size=16))
    model.optimize_parameters(3)
    log = model.get_current_log()
    assert set(log) == {'l_g', 'grad_g', 'l_g_ibmd', 'l_g_pix', 'l_g_percep', 'l_g_gan', 'l_d', 'grad_d', 'l_d_real', 'l_d_fake',
                        'out_d_real', 'out_d_fake', 'l_teacher_on_student', 'l_fake_on_student', 'd_teacher', 'd_fake'}
    assert log['l_g'] == pytest.approx(sum(log[f'l_g_{name}'] for name in ('ibmd', 'pix', 'percep', 'gan')), rel=1e-5)
    assert log['l_d'] == pytest.approx(log['l_d_real'] + log['l_d_fake'], rel=1e-5)


def test_without_extras_nothing_is_built(world):
    model = build(world, 'IBMDModel')
    assert model.extras is None and model.net_d is None and len(model.optimizers) == 2


def test_who_moves_in_which_step(world):
    """The student's step leaves the discriminator alone (and without gradient), the discriminator's the student."""
    model = build(world, 'IBMDModel', **GAN)
    nets = {'net_g': model.net_g, 'net_bridge': model.net_bridge, 'net_d': model.net_d}
    step, moved = model._step, []

    def spy(net, *arguments):
        before = {name: {key: p.clone() for key, p in one.named_parameters()} for name, one in nets.items()}
        for one in nets.values():
            one.zero_grad()
        result = step(net, *arguments)
        after = {name: dict(one.named_parameters()) for name, one in nets.items()}
        assert {name for name, one in nets.items() if any(p.grad is not None for p in one.parameters())} == {
            name for name, one in nets.items() if one is net}
        moved.append({name for name in nets if not same(before[name], after[name])})
        return result

    model._step = spy
    for iteration in range(1, 7):
        model.feed_data(batch(seed=iteration))
        model.optimize_parameters(iteration)
    assert moved == [{'net_bridge'}, {'net_bridge'}, {'net_g'}, {'net_d'}] * 2
    assert all(not p.requires_grad and p.grad is None for p in model.teacher.parameters())
    assert not hasattr(model, 'net_d_ema')


def test_the_discriminator_sees_what_the_student_made_before_its_step(world):
    model = build(world, 'IBMDModel', **GAN)
    model.feed_data(batch())
    with torch.no_grad():
        expected = (model._student_pass(model.net_g, model._training_noise(3), 3).x_0 + 1) / 2
    seen = []
    terms = model.extras.discriminator_terms
    model.extras.discriminator_terms = lambda net, image, real: seen.append((image, real)) or terms(net, image, real)
    model.optimize_parameters(3)
    (real, is_real), (fake, is_fake_real) = seen
    assert is_real and not is_fake_real and not fake.requires_grad and not model._fakes
    torch.testing.assert_close(real, model.gt)
    torch.testing.assert_close(fake, expected)


def test_the_discriminator_learns(world):
    """Bright clean images, a student that hardly moves: the losses fall and the outputs part."""
    optimizer = {'type': 'Adam', 'lr': 1e-3}
    model = build(world, 'IBMDModel', **GAN | {'train__optim_g': optimizer | {'lr': 1e-9}, 'train__optim_d': optimizer})
    logs = []
    for seed in range(60):
        data = batch(seed=seed)
        data['gt'] = 0.7 + 0.3 * data['gt']
        data['lq'] = 0.3 * data['lq']
        model.feed_data(data)
        model.optimize_parameters(3)
        logs.append(model.get_current_log())
    assert logs[0]['l_d'] > 1.2 and logs[-1]['l_d'] < 0.7 * logs[0]['l_d']
    assert logs[-1]['out_d_real'] - logs[-1]['out_d_fake'] > 1 > abs(logs[0]['out_d_real'] - logs[0]['out_d_fake'])


def test_micro_batches_sum_to_the_batch(world):
    """Of student and discriminator, but for the estimates of spectral norm, which every call moves."""
    results = []
    for size in (2, 1):
        torch.manual_seed(1)
        model = build(world, 'IBMDModel', **GAN, train__pixel_opt={'type': 'L1Loss', 'loss_weight': 0.1}, train__micro_batch=size,
                      train__grad_clip=None)
        hold_still(model.net_d)
        model.feed_data(batch())
        model.optimize_parameters(3)
        results.append([p.grad for net in (model.net_g, model.net_d) for p in net.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_the_discriminator_is_saved_and_loaded(world):
    model = build(world, 'IBMDModel', **GAN)
    model.feed_data(batch())
    model.optimize_parameters(3)
    model.save(0, 3)
    assert set(load_file(world / 'net_d_3.pth')) == {'params'} and len(load_file(world / '3.state')['optimizers']) == 3
    assert len(load_file(world / '3.state')['schedulers']) == 3
    again = build(world, 'IBMDModel', **GAN, path__pretrain_network_d=str(world / 'net_d_3.pth'))
    assert same(weights(model.net_d), weights(again.net_d))


def test_testing_builds_no_discriminator(world):
    opt = parsed(options(world, 'IBMDModel', **GAN), is_train=False)
    opt['network_d']['type'] = 'NoSuchNetwork'
    model = build_model(opt)
    assert not hasattr(model, 'net_d')
    model.feed_data({'lq': torch.rand(1, 3, 4, 4), 'lq_path': ['a.png']})
    model.test()


def test_the_hosts_perceptual_loss(world, monkeypatch):
    """Its two terms; the weights that it would download are random here."""
    vgg = torchvision.models.vgg
    monkeypatch.setattr(vgg, 'vgg19', lambda **_: SimpleNamespace(features=vgg.make_layers(vgg.cfgs['E'])))
    monkeypatch.chdir(world)
    loss = {'type': 'PerceptualLoss', 'layer_weights': {'conv1_2': 1.0}, 'perceptual_weight': 0.1, 'style_weight': 1.0}
    model = build(world, 'IBMDModel', train__perceptual_opt=loss)
    model.feed_data(batch())
    model.optimize_parameters(3)
    log = model.get_current_log()
    assert log['l_g'] == pytest.approx(log['l_g_ibmd'] + log['l_g_percep'] + log['l_g_style'], rel=1e-4)
    assert log['l_g_percep'] > 0 and log['l_g_style'] > 0


@pytest.mark.parametrize('block', ['pixel_opt', 'gan_opt'])
def test_clean_images_are_needed(world, block):
    changes = GAN if block == 'gan_opt' else {'train__pixel_opt': {'type': 'L1Loss'}}
    model = build(world, 'IBMDModel', **changes)
    model.feed_data(batch(gt=False))
    with pytest.raises(OptionError, match=f'train.{block}: the training set hands out no clean images; give dataroot_gt'):
        model.optimize_parameters(3)


def problems(world, **changes):
    opt = options(world, 'IBMDModel', **{'datasets__train__return_gt': True} | changes)
    return find_problems(parsed(opt))


def test_good_options_pass(world):
    loss = {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}}
    assert problems(world, **GAN, train__perceptual_opt=loss, train__pixel_opt={'type': 'MSELoss', 'loss_weight': 0.1}) == []
    assert problems(world, train__perceptual_opt={'type': 'LPIPSLoss', 'weights': 'nowhere.pth'}) == []


@pytest.mark.parametrize('changes, message', [
    ({'train__pixel_opt': {'type': 'L1Loss'}, 'datasets__train__return_gt': False}, 'train.pixel_opt: needs clean images, leave datasets'),
    ({'train__pixel_opt': {'type': 'L2Loss'}}, "train.pixel_opt.type: must be one of 'L1Loss', 'MSELoss', 'CharbonnierLoss', got 'L2Loss'"),
    ({'train__pixel_opt': {'type': 'L1Loss', 'loss_wieght': 1}}, "train.pixel_opt: unknown key 'loss_wieght', did you mean 'loss_weight'?"),
    ({'train__pixel_opt': {'type': 'L1Loss', 'reduction': 'sum'}}, 'train.pixel_opt.reduction: must be mean'),
    ({'train__pixle_opt': {'type': 'L1Loss'}}, "train: unknown key 'pixle_opt', did you mean 'pixel_opt'?"),
    ({'train__perceptual_opt': {'type': 'LPIPSLoss'}}, 'train.perceptual_opt: net: vgg needs weights'),
    ({'train__perceptual_opt': {'type': 'LPIPSLoss', 'net': 'alx'}}, "train.perceptual_opt.net: must be one of 'vgg', 'alex', got 'alx'"),
    ({'train__perceptual_opt': {'type': 'LPIPSLoss', 'net': 'alex'}}, 'at least 32 pixels a side, got datasets.train.gt_size: 16'),
    ({'train__perceptual_opt': {'type': 'PerceptualLoss'}}, "train.perceptual_opt: missing 'layer_weights'"),
    (GAN | {'train__gan_opt': {'type': 'GANLoss', 'gan_type': 'vanila'}}, "train.gan_opt.gan_type: must be one of 'vanilla', 'lsgan'"),
    (GAN | {'train__gan_opt': None}, 'network_d: needs train.gan_opt.'),
    (GAN | {'train__optim_d': None}, 'train.gan_opt: needs train.optim_d.'),
    (GAN | {'train__optim_d': {'type': 'Adam', 'lr': 0}}, 'train.optim_d.lr: must be a positive number, got 0'),
    (GAN | {'network_d': {'type': 'UNetDiscriminator'}}, "network_d.type: no network 'UNetDiscriminator' is registered. Discriminators: "),
    (GAN | {'network_d': DISCRIMINATOR | {'num_feet': 3}}, "network_d: unknown key 'num_feet', did you mean 'num_feat'?"),
    (GAN | {'network_d': DISCRIMINATOR | {'num_in_ch': 1}}, 'network_d: UNetDiscriminatorSN does not take RGB images of 16x16 pixels'),
    (GAN | {'network_d': {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4}}, 'VGGStyleDiscriminator does not take RGB'),
])
def test_refuses_in_one_line(world, changes, message):
    found = problems(world, **changes)
    assert [line for line in found if message in line], found
    assert not [line for line in found if '\n' in line]


def test_other_models_have_no_discriminator(world):
    opt = parsed(options(world, 'BridgeModel', **GAN))
    assert [line for line in find_problems(opt) if "unknown key 'network_d'" in line]
