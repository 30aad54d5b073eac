"""Clean images in the distillation: the targets' fixed point, the parts of the loss, what is refused."""
import pytest
import torch
from tiny import make_photos, make_teacher, options, parsed

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.models.real_pairs import RealPairs, scale_target
from ibmd_basicsr.utils.errors import OptionError


@pytest.mark.parametrize(('alpha', 'ratio'), [(0.9, 1.0), (0.85, 1.02), (0.98, 0.98)])
def test_mixed_targets_average_to_the_real_one(alpha, ratio):
    """The student's law being the real one, alpha ratio y + (1 - alpha) c y must be y."""
    pairs = RealPairs(alpha=alpha, ratio=ratio)
    assert alpha * ratio + (1 - alpha) * pairs.real_ratio == pytest.approx(1, abs=1e-12)


def test_scaled_target():
    x_0, x_t = torch.randn(2, 3, 4, 4, dtype=torch.double), torch.randn(2, 3, 4, 4, dtype=torch.double)
    assert torch.allclose(x_t - scale_target(x_0, x_t, 1.02), 1.02 * (x_t - x_0))
    assert scale_target(x_0, x_t, 1) is x_0


@pytest.mark.parametrize('values', [{'alpha': 1.0}, {'alpha': 0}, {'alpha': 0.9, 'ratio': -1}, {'alpha': True}])
def test_refuses(values):
    with pytest.raises(ValueError, match='must'):
        RealPairs(**values)


def model_with(tmp_path, pairs):
    make_photos(tmp_path / 'photos')
    make_teacher(tmp_path)
    loss = {'type': 'BridgeMatchingLoss', 'time_weight': 'uniform'}
    opt = options(tmp_path, 'IBMDModel', train__real_pairs=pairs, train__bridge_opt=loss)
    return build_model(parsed(opt))


def feed(model, gt=True):
    torch.manual_seed(0)
    batch = {'lq': torch.rand(2, 3, 4, 4), 'lq_path': ['a.png', 'b.png']} | ({'gt': torch.rand(2, 3, 16, 16)} if gt else {})
    model.feed_data(batch)
    return model._training_noise(1)


def test_almost_no_weight_on_real_pairs_is_the_plain_loss(tmp_path):
    """And half the weight lies half way to the loss on real pairs alone."""
    model = model_with(tmp_path, {'alpha': 0.5})
    losses = {}
    for alpha in (None, 1 - 1e-6, 0.5, 1e-6):
        model.real_pairs = alpha and RealPairs(alpha=alpha)
        losses[alpha] = model._bridge_loss(feed(model), 1).item()
    assert losses[1 - 1e-6] == pytest.approx(losses[None], rel=1e-4)
    assert losses[0.5] == pytest.approx((losses[None] + losses[1e-6]) / 2, rel=1e-4)
    assert losses[1e-6] != pytest.approx(losses[None], rel=1e-2)


def test_clean_images_are_needed(tmp_path):
    model = model_with(tmp_path, {'alpha': 0.9})
    with pytest.raises(OptionError, match='real_pairs: the training set hands out no clean images'):
        model._bridge_loss(feed(model, gt=False), 1)
    opt = parsed(options(tmp_path, 'IBMDModel', train__real_pairs={'alpha': 0.9}))
    assert [line for line in find_problems(opt) if line.startswith('train.real_pairs: needs clean images')]
