"""calculate_dists: the authors' network on random weights, its properties, and where weights come from."""
import sys
from types import SimpleNamespace

import cv2
import DISTS_pytorch
import numpy as np
import pytest
import torch
import torchvision
from basicsr.metrics import calculate_metric
from tiny import REPOSITORY

from ibmd_basicsr.metrics import dists_metric
from ibmd_basicsr.metrics.backbones import load_features, to_rgb_batch
from ibmd_basicsr.metrics.dists_metric import DISTS, L2Pool, _load, calculate_dists
from ibmd_basicsr.utils.errors import CheckpointError

PHOTO = cv2.imread(str(REPOSITORY / 'datasets/photos/test/coffee.png'))[:96, :112]


def vgg16_features() -> torch.nn.Sequential:
    return torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs['D'])


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Options of a random VGG16 in half precision (He's scale, so that it does not fade with depth) and positive random alpha and beta."""
    folder = tmp_path_factory.mktemp('dists')
    generator = torch.Generator().manual_seed(5)
    params = {}
    for name, value in vgg16_features().state_dict().items():
        scale = (2 / value[0].numel())**0.5 if value.ndim == 4 else 0.05
        params[f'features.{name}'] = (scale * torch.randn(value.shape, generator=generator)).half()
    torch.save(params, folder / 'vgg.pth')
    torch.save({name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ('alpha', 'beta')}, folder / 'weights.pt')
    return {'vgg_weights': str(folder / 'vgg.pth'), 'dists_weights': str(folder / 'weights.pt'), 'device': 'cpu'}


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_equal_images_are_at_zero_and_order_does_not_matter(files):
    worse = jpeg(PHOTO, 10)
    assert calculate_dists(PHOTO, PHOTO, **files) == pytest.approx(0, abs=1e-12)
    value = calculate_dists(worse, PHOTO, **files)
    assert value > 1e-3
    assert calculate_dists(PHOTO, worse, **files) == pytest.approx(value, abs=1e-12)


def test_lower_quality_is_farther(files):
    values = [calculate_dists(jpeg(PHOTO, quality), PHOTO, **files) for quality in (90, 40, 10, 5)]
    assert values == sorted(values)
    assert values[-1] > 3 * values[0]


def test_value_of_the_formula_by_hand():
    """Without stages' weights only the colours count: means 0.2 and 0.6, variances and covariance known."""
    model = DISTS(vgg16_features())
    for value in model.weights.values():
        torch.nn.init.zeros_(value)
        torch.nn.init.ones_(value[:, :3])
    wave = torch.tensor([1., -1.]).repeat(16).expand(1, 3, 32, 32)
    texture = (2 * 0.2 * 0.6 + 1e-6) / (0.2**2 + 0.6**2 + 1e-6)
    structure = (2 * 0.1 * 0.3 + 1e-6) / (0.1**2 + 0.3**2 + 1e-6)
    with torch.no_grad():
        value = model(0.2 + 0.1 * wave, 0.6 + 0.3 * wave).item()
    assert value == pytest.approx(1 - (texture + structure) / 2, abs=1e-6)


def test_pooling_is_a_weighted_root_mean_square():
    x = torch.rand(1, 2, 6, 6)
    pooled = L2Pool(2)(x)
    window = torch.tensor([[1., 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert pooled.shape == (1, 2, 3, 3)
    assert torch.allclose(pooled[:, :, 1, 1], (x[:, :, 1:4, 1:4]**2 * window).sum((2, 3)).sqrt())


def test_equals_the_authors_package(files, monkeypatch):
    monkeypatch.setattr(torchvision.models, 'vgg16', lambda **_: SimpleNamespace(features=vgg16_features()))
    theirs = DISTS_pytorch.DISTS(load_weights=False)
    monkeypatch.undo()
    params = torch.load(files['vgg_weights'], weights_only=True)
    for name, value in params.items():
        number = int(name.split('.')[1])
        stage = 1 + sum(number >= start for start in (4, 9, 16, 23))
        theirs.get_submodule(f'stage{stage}.{number}').state_dict()[name.split('.')[2]].copy_(value)
    theirs.load_state_dict(torch.load(files['dists_weights'], weights_only=True), strict=False)
    for quality in (5, 40):
        expected = theirs(to_rgb_batch(jpeg(PHOTO, quality), 'cpu'), to_rgb_batch(PHOTO, 'cpu')).item()
        assert calculate_dists(jpeg(PHOTO, quality), PHOTO, **files) == pytest.approx(expected, abs=2e-6)


def test_host_calls_it_with_its_own_keys(files):
    worse = jpeg(PHOTO, 10)
    value = calculate_metric({'img': worse, 'img2': PHOTO}, {'type': 'calculate_dists', 'crop_border': 8, 'better': 'lower', **files})
    assert value == calculate_dists(worse[8:-8, 8:-8], PHOTO[8:-8, 8:-8], **files)


def test_whole_network_in_torchs_cache_is_found(files, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    params = torch.load(files['vgg_weights'], weights_only=True)
    whole = {name: value.float() for name, value in params.items()} | {'classifier.0.weight': torch.zeros(2, 2)}
    torch.save(whole, tmp_path / 'hub/checkpoints/vgg16-397923af.pth')
    worse = jpeg(PHOTO, 10)
    assert calculate_dists(worse, PHOTO, **files | {'vgg_weights': None}) == calculate_dists(worse, PHOTO, **files)


def test_missing_weights_are_named_in_one_line(files, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        calculate_dists(PHOTO, PHOTO, **files | {'vgg_weights': None})
    assert str(error.value) == (
        f"{tmp_path}/hub/checkpoints/vgg16-397923af.pth: no such weight file; torchvision's vgg16 (vgg16-397923af.pth) is needed. "
        'Nothing is downloaded: put the file there, or give its path as vgg_weights.')
    assert list(tmp_path.rglob('*')) == []
    monkeypatch.setattr(dists_metric.importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(CheckpointError, match=r'weights\.pt.*`pip install dists-pytorch`.*give their path as dists_weights'):
        calculate_dists(PHOTO, PHOTO, **files | {'dists_weights': None})


def test_weights_inside_a_package_are_found_without_its_import(files, tmp_path, monkeypatch):
    (tmp_path / 'DISTS_pytorch').mkdir()
    (tmp_path / 'DISTS_pytorch/__init__.py').write_text('raise ImportError')
    torch.save(torch.load(files['dists_weights'], weights_only=True), tmp_path / 'DISTS_pytorch/weights.pt')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'DISTS_pytorch', raising=False)  # its spec would be that of the real one
    assert dists_metric._find_dists(None) == tmp_path / 'DISTS_pytorch/weights.pt'


def test_loading_leaves_the_random_state_and_a_frozen_network(files):
    before = torch.get_rng_state()
    model = _load.__wrapped__(files['vgg_weights'], files['dists_weights'], 'cpu')
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_wrong_weights_and_sizes_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match='one size'):
        calculate_dists(PHOTO[1:], PHOTO, **files)
    with pytest.raises(ValueError, match='at least 32 pixels'):
        calculate_dists(PHOTO, PHOTO, crop_border=40, **files)
    torch.save({'features.0.weight': torch.zeros(64, 3, 3, 3)}, tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='25 missing'):
        load_features('vgg16', tmp_path / 'half.pth')
