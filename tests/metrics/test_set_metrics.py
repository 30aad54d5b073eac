"""Frechet and kernel distance: closed forms, exact merging, other implementations, features and references from files."""
import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from tiny import REPOSITORY, make_photos

from ibmd_basicsr.data.lmdb_writer import create_lmdb
from ibmd_basicsr.metrics.distances import Moments, Vectors, frechet_distance, kernel_distance
from ibmd_basicsr.metrics.features import FeatureExtractor, build_extractor
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY, FrechetDistance, KernelDistance
from ibmd_basicsr.utils.errors import CheckpointError
from ibmd_basicsr.utils.image_sets import read_images

METRICS = [FrechetDistance, KernelDistance]
COLOURS = FeatureExtractor(lambda x: x.mean((2, 3)) * 255, 'Colours')
"""Mean R, G, B of an image."""


def gaussian(rng, mean, std, count=400, channels=3) -> np.ndarray:
    """Return ``count`` images of one pixel whose BGR values are independent Gaussian numbers."""
    return rng.normal(mean, std, (count, 1, 1, channels))


def spd(rng, size: int) -> np.ndarray:
    root = rng.normal(size=(size, 2 * size))
    return root @ root.T / size


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / 'photos', count=6)


def fill(metric, images):
    for image in images:
        metric.update(image)
    return metric


# mathematics

def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    mean, mean2 = np.array([1., -2, 0]), np.array([0., 1, 0.5])
    variance, variance2 = np.array([4., 1, 0.25]), np.array([1., 9, 0.25])
    expected = np.sum((mean - mean2)**2) + np.sum((np.sqrt(variance) - np.sqrt(variance2))**2)
    assert frechet_distance(mean, np.diag(variance), mean2, np.diag(variance2)) == pytest.approx(expected, abs=1e-12)


def test_frechet_distance_is_that_of_scipys_root():
    rng = np.random.default_rng(0)
    a, b, mean, mean2 = spd(rng, 12), spd(rng, 12), rng.normal(size=12), rng.normal(size=12)
    root = scipy.linalg.sqrtm(a @ b)
    expected = np.sum((mean - mean2)**2) + np.trace(a + b - 2 * root.real)
    assert frechet_distance(mean, a, mean2, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_a_singular_gaussian_to_itself_is_zero():
    moments = Moments()
    moments.update(np.random.default_rng(0).normal(size=(10, 200)))
    assert frechet_distance(*moments.compute(), *moments.compute()) == pytest.approx(0, abs=1e-9)


def test_moments_are_numpys():
    features = np.random.default_rng(0).normal(5, 2, (50, 7))
    moments = Moments()
    for part in np.split(features, [3, 20]):
        moments.update(part)
    mean, covariance = moments.compute()
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), atol=1e-12)


@pytest.mark.parametrize('statistics', [Moments, Vectors])
def test_statistics_of_parts_add_up(statistics):
    features = np.random.default_rng(0).normal(5, 2, (20, 3))
    whole, first, second = statistics(), statistics(), statistics()
    whole.update(features)
    first.update(features[:4])
    first.update(features[4:9])
    second.update(features[9:])
    first.merge(second)
    for a, b in zip(first.compute(), whole.compute(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_kernel_distance_needs_two_vectors_on_each_side():
    assert len(Vectors().compute()) == 0
    with pytest.raises(ValueError, match='at least 2 images on each side, got 0 and 5'):
        kernel_distance(Vectors().compute(), np.ones((5, 3)))


def test_kernel_distance_is_the_double_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(0.5, 1, (7, 4))

    def kernel(a, b):
        return (a @ b / 4 + 1)**3

    expected = (np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
                + np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
                - 2 * np.mean([kernel(a, b) for a in x for b in y]))
    assert kernel_distance(x, y) == pytest.approx(expected, abs=1e-12)


def test_kernel_distance_does_not_depend_on_its_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 4)), rng.normal(size=(17, 4))
    whole = kernel_distance(x, y)
    monkeypatch.setattr('ibmd_basicsr.metrics.distances.BLOCK', 4)
    assert kernel_distance(x, y) == pytest.approx(whole, abs=1e-12)


def test_kernel_distance_is_unbiased():
    """Two samples of one distribution: mean 0 within its standard error, which the biased estimator (with i = j) misses by far."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(300, 2, 30, 5))
    values = [kernel_distance(x, y) for x, y in pairs]
    error = np.std(values) / len(values)**0.5
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)
    biased = [((x @ x.T / 5 + 1)**3).mean() + ((y @ y.T / 5 + 1)**3).mean() - 2 * ((x @ y.T / 5 + 1)**3).mean() for x, y in pairs]
    assert np.mean(biased) > 30 * error


def test_kernel_distance_of_random_splits_is_near_zero():
    """Halves of one set are a little nearer to each other than two samples, by the set's own kernel terms over its size."""
    rng = np.random.default_rng(0)
    features, far = rng.normal(size=(200, 5)), rng.normal(0.5, 1, (200, 5))
    values = []
    for _ in range(50):
        order = rng.permutation(200)
        values.append(kernel_distance(features[order[:100]], features[order[100:]]))
    assert abs(np.mean(values)) < 0.05 * kernel_distance(features, far)


# running statistics

@pytest.mark.parametrize('metric', METRICS)
def test_distance_of_a_set_to_itself(metric, photos):
    value = fill(metric(photos, device='cpu'), read_images(photos)).compute()
    assert metric(photos, COLOURS).name == {FrechetDistance: 'FD', KernelDistance: 'KD'}[metric] + '-Colours'
    if metric is FrechetDistance:
        assert value == pytest.approx(0, abs=1e-6)
    else:
        assert value <= 1e-9  # unbiased: a set and itself are nearer than two samples of one distribution


@pytest.mark.parametrize('metric', METRICS)
def test_images_themselves_are_a_reference(metric, photos):
    images = list(read_images(photos))
    given, read = (fill(metric(reference, COLOURS), images[:4]).compute() for reference in (iter(images), photos))
    assert given == read


def test_frechet_distance_of_two_gaussians_through_an_extractor(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / 'reference.npz', mu=np.array([100., 110, 120]), sigma=np.diag([16., 25, 36]))
    metric = FrechetDistance(tmp_path / 'reference.npz', COLOURS)
    metric.update(gaussian(rng, [130, 110, 90], [6, 10, 2], count=40000))  # BGR, the features are RGB
    assert metric.compute() == pytest.approx(10**2 + 10**2 + (2 - 4)**2 + (10 - 5)**2, rel=0.01)


@pytest.mark.parametrize('metric', METRICS)
def test_two_halves_merged_are_the_whole(metric, photos):
    images = gaussian(np.random.default_rng(0), 128, 30, count=60)
    whole, first, second = (metric(photos, COLOURS) for _ in range(3))
    whole.update(images)
    fill(first, images[:25])
    second.update(images[25:])
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


@pytest.mark.filterwarnings('ignore:Matrix is singular')  # by features that no crop excites
def test_frechet_distance_of_photographs_is_that_of_numpy_and_scipy(tmp_path):
    """From the images to the number, the long way: AlexNet's features, numpy's moments, scipy's square root of the product."""
    rng = np.random.default_rng(0)
    photo = cv2.imread(str(REPOSITORY / 'datasets/photos/test/coffee.png'))
    corners = rng.integers(0, min(photo.shape[:2]) - 32, (300, 2))
    crops = [photo[y:y + 32, x:x + 32] for y, x in corners]  # more than the 256 features: the covariance is regular
    blurred = [cv2.GaussianBlur(crop, (0, 0), 1) for crop in crops]
    metric = FrechetDistance(crops, device='cpu')
    metric.update(np.stack(blurred))
    a, b = (metric.features(np.stack(images)) for images in (blurred, crops))
    covariances = [np.cov(features, rowvar=False) for features in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    expected = np.sum((a.mean(0) - b.mean(0))**2) + np.trace(sum(covariances) - 2 * root.real)
    assert metric.compute() == pytest.approx(expected, rel=1e-3) and expected > 1


def test_images_are_the_same_reference_as_their_folder(photos):
    for metric in METRICS:
        images = gaussian(np.random.default_rng(0), 128, 30)
        assert fill(metric(read_images(photos), COLOURS), [images]).compute() == fill(metric(photos, COLOURS), [images]).compute()


@pytest.mark.parametrize('metric', METRICS)
def test_features_are_as_good_as_images(metric, photos):
    images = gaussian(np.random.default_rng(0), 128, 30)
    given = metric(photos, COLOURS)
    given.update_features(COLOURS(images))
    assert given.compute() == fill(metric(photos, COLOURS), [images]).compute()


@pytest.mark.parametrize('metric', METRICS)
def test_reset_forgets_the_images_alone(metric, photos):
    rng = np.random.default_rng(0)
    used, fresh = metric(photos, COLOURS), metric(photos, COLOURS)
    used.update(gaussian(rng, 50, 3))
    used.reset()
    with pytest.raises(ValueError, match='at least 2 images'):
        used.compute()
    images = gaussian(rng, 128, 30)
    assert fill(used, [images]).compute() == fill(fresh, [images]).compute()


@pytest.mark.parametrize('metric', METRICS)
def test_worse_pictures_are_farther(metric, tmp_path):
    photo = cv2.imread(str(REPOSITORY / 'datasets/photos/test/chelsea.png'))
    crops = [photo[y:y + 48, x:x + 48] for y in range(0, 144, 48) for x in range(0, 192, 48)]
    for i, crop in enumerate(crops):
        cv2.imwrite(str(tmp_path / f'{i}.png'), crop)
    values = []
    measured = metric(tmp_path, device='cpu')
    for sigma in (0.5, 1, 2):
        measured.reset()
        values.append(fill(measured, [cv2.GaussianBlur(crop, (0, 0), sigma) for crop in crops]).compute())
    assert values == sorted(values)


# references

def test_lmdb_and_folder_are_the_same_reference(photos, tmp_path):
    create_lmdb(photos, tmp_path / 'photos.lmdb', progress=False)
    for a, b in zip(read_images(photos), read_images(tmp_path / 'photos.lmdb'), strict=True):
        np.testing.assert_array_equal(a, b)


def test_statistics_of_a_file_are_those_of_the_images(photos, tmp_path):
    metric = FrechetDistance(photos, COLOURS)
    np.savez(tmp_path / 'stats.npz', mu=metric.reference[0], sigma=metric.reference[1])
    images = gaussian(np.random.default_rng(0), 128, 30)
    stored = FrechetDistance(tmp_path / 'stats.npz', COLOURS)
    assert fill(stored, [images]).compute() == fill(metric, [images]).compute()


def test_wrong_references_are_refused(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such image folder or LMDB'):
        FrechetDistance(tmp_path / 'none', COLOURS)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r'holds no image \(.png, .jpg'):
        KernelDistance(tmp_path / 'empty', COLOURS)
    (photos / 'x.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'x\.png: is empty'):
        FrechetDistance(photos, COLOURS)
    with pytest.raises(ValueError, match='needs the images'):
        KernelDistance(tmp_path / 'stats.npz', COLOURS)
    np.savez(tmp_path / 'stats.npz', mu=np.zeros(4))
    with pytest.raises(ValueError, match='must hold mu and sigma, got mu'):
        FrechetDistance(tmp_path / 'stats.npz', COLOURS)
    np.savez(tmp_path / 'stats.npz', mu=np.zeros(4), sigma=np.eye(3))
    with pytest.raises(ValueError, match=r'got \(4,\) and \(3, 3\)'):
        FrechetDistance(tmp_path / 'stats.npz', COLOURS)
    np.savez(tmp_path / 'stats.npz', mu=np.zeros(4), sigma=np.eye(4))
    metric = FrechetDistance(tmp_path / 'stats.npz', COLOURS)
    metric.update(gaussian(np.random.default_rng(0), 128, 30))
    with pytest.raises(ValueError, match='same features, got 3 and 4'):
        metric.compute()


# features

class Script(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Inception(torch.nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.features = features

    def forward(self, x: torch.Tensor, return_features: bool = False):
        assert return_features and x.dtype == torch.uint8
        return x.float().mean((1, 2, 3))[:, None].repeat(1, self.features)


@pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')
class TestExtractors:
    def script(self, module, path):
        torch.jit.script(module).save(str(path))
        return path

    def test_alexnet_features_by_hand(self, photos):
        image = next(read_images(photos))
        extractor = build_extractor(device='cpu')
        x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        expected = extractor.network.features(x).mean((2, 3))
        assert extractor.name == 'AlexNet' and extractor(image).dtype == np.float64
        np.testing.assert_allclose(extractor(image), expected.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(extractor(np.stack([image, image]))[1:], extractor(image), rtol=1e-4, atol=1e-6)

    def test_vgg16_is_read_from_its_file(self, tmp_path, monkeypatch):
        with torch.device('meta'):
            params = torchvision.models.vgg16().features.state_dict()
        torch.save({f'features.{name}': torch.full(value.shape, 1e-3).half() for name, value in params.items()}, tmp_path / 'vgg.pth')
        extractor = build_extractor('vgg16', tmp_path / 'vgg.pth', device='cpu')
        assert extractor.name == 'VGG16' and extractor(np.zeros((32, 40, 3), np.uint8)).shape == (1, 512)
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        with pytest.raises(CheckpointError, match='Nothing is downloaded: put the file there, or give its path as weights'):
            build_extractor('vgg16')

    def test_torchscript_is_named_by_its_file(self, tmp_path, photos):
        metric = FrechetDistance(photos, str(self.script(Script(), tmp_path / 'Mean.pt')), device='cpu')
        assert metric.name == 'FD-Mean'
        image = np.full((4, 4, 3), (0, 51, 255), np.uint8)
        np.testing.assert_allclose(metric.features(image), [[1, 0.2, 0]], atol=1e-7)

    def test_only_inceptions_own_file_makes_an_fid(self, tmp_path, photos):
        path = self.script(Inception(2048), tmp_path / 'inception-2015-12-05.pt')
        assert KernelDistance(photos, 'inception', weights=path, device='cpu').name == 'KID'
        extractor = build_extractor('inception', path, device='cpu')
        assert extractor.label('FD', 'FID') == 'FID'
        assert extractor(np.full((4, 4, 3), 77, np.uint8))[0, 0] == 77
        other = build_extractor('inception', self.script(Inception(64), tmp_path / 'other.pt'), device='cpu')
        with pytest.raises(ValueError, match='has 2048 features, this file gives 64'):
            other(np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(CheckpointError, match=r'inception-2015-12-05\.pt\) is needed.*give its path as weights'):
            build_extractor('inception')

    def test_what_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="'alexnet', 'vgg16', 'inception' or a TorchScript file, got 'resnet'"):
            build_extractor('resnet')
        (tmp_path / 'bad.pt').write_bytes(b'no script')
        with pytest.raises(CheckpointError, match='cannot be read as a TorchScript file'):
            build_extractor(str(tmp_path / 'bad.pt'), device='cpu')
        with pytest.raises(ValueError, match='leave weights out'):
            build_extractor(str(tmp_path / 'bad.pt'), 'x.pth', device='cpu')
        with pytest.raises(CheckpointError, match='no such TorchScript file'):
            build_extractor('inception', tmp_path / 'none.pt', device='cpu')
        with pytest.raises(ValueError, match='at least 32 pixels a side, got 40x31'):
            build_extractor(device='cpu')(np.zeros((31, 40, 3), np.uint8))
        with pytest.raises(ValueError, match=r'must be \(H, W, 3\)'):
            COLOURS(np.zeros((31, 40), np.uint8))
        with pytest.raises(ValueError, match=r'must return \(B, D\)'):
            FeatureExtractor(lambda x: x, 'none')(np.zeros((31, 40, 3), np.uint8))


def test_registered_apart_from_the_functions_of_one_image():
    assert sorted(SET_METRIC_REGISTRY.keys()) == ['FrechetDistance', 'KernelDistance']


@pytest.mark.parametrize('metric', [FrechetDistance, KernelDistance])
def test_patches_are_images_of_their_own(metric):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 70, 100, 3), np.uint8)
    others = rng.integers(0, 200, (4, 70, 100, 3), np.uint8)
    # two rows of three squares of 32 pixels; six rows and four columns are left out
    squares = [image[32 * row:32 * row + 32, 32 * column:32 * column + 32] for image in others for row in range(2) for column in range(3)]
    whole = metric(images, patch=32, device='cpu')
    assert whole.name.endswith('-AlexNet/32')
    reference = [image[32 * row:32 * row + 32, 32 * column:32 * column + 32] for image in images for row in range(2) for column in range(3)]
    by_hand = metric(reference, device='cpu')
    whole.update(others[0])
    whole.update(others[1:])
    for square in squares:
        by_hand.update(square)
    assert whole.compute() == pytest.approx(by_hand.compute(), rel=1e-5)


def test_wrong_patches_are_refused():
    with pytest.raises(ValueError, match='patch must be an integer of at least 32, got 16'):
        build_extractor(patch=16)
    with pytest.raises(ValueError, match='patches of 64 pixels do not fit into an image of 100x40'):
        build_extractor(patch=64)(np.zeros((40, 100, 3), np.uint8))
