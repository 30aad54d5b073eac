"""calculate_lpips: frozen values made with float32 weights, the host's contract, no trace in the random state."""
import warnings

import cv2
import lpips
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from tiny import REPOSITORY

from ibmd_basicsr.metrics.backbones import load_features
from ibmd_basicsr.metrics.lpips_metric import ALEXNET_FEATURES, _load, calculate_lpips
from ibmd_basicsr.utils.errors import CheckpointError


def photo(name: str) -> np.ndarray:
    return cv2.imread(str(REPOSITORY / f'datasets/photos/test/{name}.png'))


# made with torchvision's float32 AlexNet; half precision moves them by less than 1e-4
@pytest.mark.parametrize('name, sigma, expected', [('coffee', 1, 0.113157), ('coffee', 3, 0.351065), ('chelsea', 1, 0.226717)])
def test_values_of_the_float32_network(name, sigma, expected):
    image = photo(name)
    assert calculate_lpips(cv2.GaussianBlur(image, (0, 0), sigma), image) == pytest.approx(expected, abs=5e-4)


@pytest.mark.filterwarnings('ignore::UserWarning')  # torchvision's deprecated argument names, inside lpips
def test_equals_the_package_by_hand():
    """The package's own path from an array to a distance, with torchvision's AlexNet put into it as its constructor would."""
    with torch.random.fork_rng():
        theirs = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False).eval()
    features = load_features('alexnet', ALEXNET_FEATURES)
    for name, value in theirs.net.state_dict().items():
        value.copy_(features.state_dict()[name.partition('.')[2]])
    image = photo('chelsea')[:96, :128]
    for sigma in (1, 3):
        blurred = cv2.GaussianBlur(image, (0, 0), sigma)
        expected = theirs(*(lpips.im2tensor(x[..., ::-1]) for x in (blurred, image))).item()
        assert calculate_lpips(blurred, image, device='cpu') == pytest.approx(expected, rel=1e-5)


def test_equal_images_are_at_zero_and_channel_order_matters():
    image = photo('coffee')
    assert calculate_lpips(image, image) == 0
    blurred = cv2.GaussianBlur(image, (0, 0), 2)
    swapped = calculate_lpips(blurred[..., ::-1], image[..., ::-1])
    assert abs(swapped - calculate_lpips(blurred, image)) > 1e-3


def test_host_calls_it_with_its_own_keys():
    image = photo('coffee')[:64, :64]
    other = cv2.GaussianBlur(image, (0, 0), 2)
    value = calculate_metric({'img': other, 'img2': image}, {'type': 'calculate_lpips', 'crop_border': 8, 'better': 'lower'})
    assert value == calculate_lpips(other[8:-8, 8:-8], image[8:-8, 8:-8])


def test_loading_is_silent_and_leaves_the_random_state(capsys):
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model = _load.__wrapped__(str(ALEXNET_FEATURES), 'cpu')
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ('', '')
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_wrong_weights_and_sizes_are_refused(tmp_path):
    image = photo('coffee')
    with pytest.raises(ValueError, match='one size'):
        calculate_lpips(image[1:], image)
    with pytest.raises(ValueError, match='at least 32 pixels'):
        calculate_lpips(image, image, crop_border=113)
    torch.save({'features.0.weight': torch.zeros(64, 3, 11, 11)}, tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='1 missing'):
        calculate_lpips(image, image, weights=str(tmp_path / 'half.pth'))
