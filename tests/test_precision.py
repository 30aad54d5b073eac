"""Lower precision of restoring: what it costs in quality, where it is refused, and that only the network runs in it."""
import cv2
import pytest
import torch
import yaml
from tiny import REPOSITORY

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils import precision
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise

CPU, GPU = torch.device('cpu'), torch.device('cuda:0')


def psnr(a, b):
    return -10 * ((a - b).double() ** 2).mean().log10().item()


def to_8_bits(image):
    return (image * 255).round() / 255


@pytest.mark.parametrize('task', ['sr4x', 'jpeg10'])
def test_bf16_costs_the_shipped_students_next_to_nothing(task):
    """A crop of a photograph: 58 dB from float32, which leaves the PSNR to the truth (36 dB) as it is."""
    opt = yaml.safe_load((REPOSITORY / f'options/test/{task}_ibmd.yml').read_text())
    photo = cv2.imread(str(REPOSITORY / 'datasets/photos/test/otters_a.png'))[:48, :48, ::-1]
    gt = torch.from_numpy(photo / 255).float().permute(2, 0, 1)[None]
    lq = torch.nn.functional.avg_pool2d(gt, opt['scale']) if opt['scale'] > 1 else gt

    def restore(precision):
        restorer = build_restorer(network=opt['network_g'], bridge=opt['bridge'], sampler=opt['val']['sampler'], scale=opt['scale'],
                                  weights=str(REPOSITORY / opt['path']['pretrain_network_g']), precision=precision)
        return restorer(lq, PerImageNoise.for_images(0, ['image']))

    exact, lowered = restore('fp32'), restore('bf16')
    assert lowered.dtype == torch.float32
    assert 50 < psnr(lowered, exact) < 80  # above: nothing was lowered
    assert abs(psnr(to_8_bits(lowered), gt) - psnr(to_8_bits(exact), gt)) < 0.1


@pytest.mark.parametrize('sampler', [{'type': 'one_step'}, {'type': 'ancestral', 'steps': 2}])
def test_the_network_alone_is_lowered(sampler):
    """A network that multiplies by one in bf16: the identity but for its rounding, so that what stands around it shows."""
    seen = []

    class Rounding(torch.nn.Module):
        size_multiple, in_channels, noise_channels, cond_channels, num_classes = 1, 3, 0, 0, None

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1, bias=False)
            self.conv.weight.data = torch.eye(3)[..., None, None]

        def forward(self, x, t, cond=None, z=None):
            y = self.conv(x)
            seen.append((x, y))
            return y * 0

    bridge = build_bridge(type='I2SB')
    restorer = Restorer(net=Rounding(), bridge=bridge, sampler=SamplerOptions(**sampler), precision='bf16')
    exact = Restorer(net=Rounding(), bridge=bridge, sampler=SamplerOptions(**sampler))
    lq = torch.rand(1, 3, 8, 8)
    restored, wanted = (one(lq, PerImageNoise.for_images(0, ['a'])) for one in (restorer, exact))
    half = len(seen) // 2
    for (x, y), (x_exact, y_exact) in zip(seen[:half], seen[half:]):
        assert torch.equal(x, x_exact) and x.dtype == y_exact.dtype == torch.float32 and y.dtype == torch.bfloat16
    assert torch.equal(restored, wanted)


@pytest.mark.parametrize('device, has, capability, wanted', [
    (CPU, 'amx_tile', None, torch.bfloat16), (CPU, 'avx512_bf16', None, torch.bfloat16), (CPU, '', None, None),
    (GPU, '', (8, 0), torch.bfloat16), (GPU, '', (7, 5), None)])
def test_auto_takes_bf16_where_it_is_faster(device, has, capability, wanted, monkeypatch):
    for name in ('amx_tile', 'avx512_bf16'):
        monkeypatch.setattr(torch.cpu, f'_is_{name}_supported', lambda name=name: has == name, raising=False)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert precision.restoring_dtype('auto', device) is precision.autocast_dtype('auto', device) is wanted
    assert precision.restoring_dtype('bf16', device) is precision.autocast_dtype('bf16', device) is torch.bfloat16
    assert precision.restoring_dtype('fp32', device) is precision.autocast_dtype(False, device) is None


def test_fp16_is_for_gpus():
    assert precision.restoring_dtype('fp16', GPU) is torch.float16
    net = ADMUNet(model_channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), num_head_channels=8)
    with pytest.raises(OptionError, match="precision: 'fp16' needs a GPU, the network is on the CPU"):
        Restorer(net=net, bridge=build_bridge(type='I2SB'), sampler=SamplerOptions(), precision='fp16')


@pytest.mark.parametrize('value', ['half', None, True])
def test_unknown_precisions_are_named(value):
    with pytest.raises(OptionError, match=f"must be one of 'fp32', 'bf16', 'fp16', 'auto', got {value!r}"):
        precision.restoring_dtype(value, CPU)
    with pytest.raises(OptionError, match=r"train.amp must be 'bf16', 'auto' or false, got 'fp16'"):
        precision.autocast_dtype('fp16', CPU)
