"""calculate_classifier_accuracy: a classifier with known answers, torchvision's with weights from a file, and what is refused."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from basicsr.metrics import calculate_metric

from ibmd_basicsr.metrics.classifier_metric import _load, calculate_classifier_accuracy
from ibmd_basicsr.utils.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')
RED, GREEN, BLUE = (np.full((8, 8, 3), np.roll((0, 0, 200), -i), np.uint8) for i in range(3))  # BGR


class LargestColour(torch.nn.Module):
    """Class 0 is red, 1 green, 2 blue."""

    def forward(self, x):
        return x.mean((2, 3))


class Side(torch.nn.Module):
    """The class is the side of the image that arrives."""

    def forward(self, x):
        return F.one_hot(torch.tensor([x.shape[-1]]), 300).float()


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.mean((0, 2, 3))


@pytest.fixture
def script(tmp_path):
    def save(module):
        path = tmp_path / f'{type(module).__name__}.pt'
        torch.jit.script(module).save(str(path))
        return {'classifier': str(path), 'device': 'cpu'}
    return save


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory):
    """A file of a random ResNet-18 in half precision, without counts of batches as old files are; and the network."""
    path = tmp_path_factory.mktemp('resnet') / 'resnet18.pth'
    torch.manual_seed(0)
    network = torchvision.models.resnet18().half().float().eval()
    # untrained networks prefer one class whatever they see: take away what this one says of a light picture
    with torch.no_grad():
        network.fc.bias.copy_((network.fc.bias - network(torch.ones(1, 3, 224, 224))[0]).half())
    torch.save({name: value.half() for name, value in network.state_dict().items() if 'num_batches' not in name}, path)
    return path, network


def test_labels_are_met_or_missed(script):
    options = script(LargestColour())
    for label, image in enumerate((RED, GREEN, BLUE)):
        values = [calculate_classifier_accuracy(image, label=wanted, **options) for wanted in range(3)]
        assert values == [100.0 * (wanted == label) for wanted in range(3)]


def test_without_labels_the_reference_decides(script):
    options = script(LargestColour())
    assert calculate_classifier_accuracy(RED, RED // 2, **options) == 100
    assert calculate_classifier_accuracy(RED, BLUE, **options) == 0
    assert calculate_classifier_accuracy(RED, BLUE, label=0, **options) == 100  # a label goes before the reference


def test_border_is_left_out(script):
    framed = RED.copy()
    framed[:3], framed[-3:] = (250, 0, 0), (250, 0, 0)
    options = script(LargestColour())
    assert calculate_classifier_accuracy(framed, label=2, **options) == 100
    assert calculate_classifier_accuracy(framed, label=0, crop_border=3, **options) == 100


def test_a_script_gets_the_image_as_it_is_unless_a_size_is_given(script):
    options = script(Side())
    assert calculate_classifier_accuracy(RED, label=8, **options) == 100
    assert calculate_classifier_accuracy(RED, label=20, size=20, **options) == 100


def test_host_calls_it_with_its_own_keys(script):
    block = {'type': 'calculate_classifier_accuracy', 'crop_border': 2, 'better': 'higher', **script(LargestColour())}
    assert calculate_metric({'img': RED, 'img2': RED}, block) == 100


def test_torchvisions_resnet_by_hand(resnet18):
    path, network = resnet18
    choices = set()
    for colour in ((130, 120, 110), (255, 255, 255)):
        image = np.full((64, 48, 3), colour, np.uint8)
        image[:32] //= 2
        x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(x, size=(224, 224), mode='bicubic')
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        with torch.no_grad():
            expected = network(x).argmax().item()
        choices.add(expected)
        values = [calculate_classifier_accuracy(image, label=label, classifier='resnet18', weights=str(path), device='cpu')
                  for label in (expected, (expected + 1) % 1000)]
        assert values == [100, 0]
    assert len(choices) > 1


def test_weights_in_torchs_cache_are_found_and_missing_ones_named(resnet18, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(CheckpointError, match=r'resnet18-f37072fd\.pth: no such weight file.*Nothing is downloaded.*its path as weights'):
        calculate_classifier_accuracy(RED, RED, classifier='resnet18', device='cpu')
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'hub/checkpoints/resnet18-f37072fd.pth').write_bytes(resnet18[0].read_bytes())
    assert calculate_classifier_accuracy(RED, RED, classifier='resnet18', device='cpu') == 100


def test_loading_leaves_the_random_state(resnet18):
    before = torch.get_rng_state()
    _load.__wrapped__('resnet18', str(resnet18[0]), None, 'cpu')
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_refused(script, resnet18, tmp_path):
    options = script(LargestColour())
    with pytest.raises(ValueError, match="a classifier of torchvision.models or a TorchScript file, got 'resnet19'"):
        calculate_classifier_accuracy(RED, RED, classifier='resnet19')
    with pytest.raises(ValueError, match='leave weights out'):
        calculate_classifier_accuracy(RED, RED, weights='x.pth', **options)
    with pytest.raises(ValueError, match='labels are looked up by our models'):
        calculate_classifier_accuracy(RED, RED, labels='labels.txt', **options)
    with pytest.raises(ValueError, match='needs labels or a reference'):
        calculate_classifier_accuracy(RED, **options)
    with pytest.raises(ValueError, match='label 3 is none of the classifier\'s 3 classes'):
        calculate_classifier_accuracy(RED, label=3, **options)
    with pytest.raises(ValueError, match='one size'):
        calculate_classifier_accuracy(RED, RED[1:], **options)
    with pytest.raises(ValueError, match=r'must return \(B, classes\), got \(3,\)'):
        calculate_classifier_accuracy(RED, RED, **script(Flat()))
    torch.save({'fc.bias': torch.zeros(1000)}, tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='does not fit the network ResNet: .* missing'):
        calculate_classifier_accuracy(RED, RED, classifier='resnet18', weights=str(tmp_path / 'half.pth'), device='cpu')
    (tmp_path / 'bad.pt').write_bytes(b'no script')
    with pytest.raises(CheckpointError, match='cannot be read as a TorchScript file'):
        calculate_classifier_accuracy(RED, RED, classifier=str(tmp_path / 'bad.pt'), device='cpu')
