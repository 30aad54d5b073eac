"""Networks that restore: frozen, channels innermost on CPUs, the same values and weights; what cannot run so keeps its layout."""
import pytest
import torch
from torch import nn

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.utils.frozen import ready_to_restore

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Viewing(nn.Module):
    """Asks its feature maps for the layout that they come in by default."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).view(len(x), -1)


def net():
    torch.manual_seed(0)
    made = ADMUNet(model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_head_channels=8)
    for value in made.parameters():
        if not value.any():
            nn.init.normal_(value, std=0.1)
    return made


def test_values_and_weights_stay():
    plain, ready = net().eval(), ready_to_restore(net(), 'cpu')
    assert ready.input_blocks[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not ready.training and not any(value.requires_grad for value in ready.parameters())
    state, expected = ready.state_dict(), plain.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[name], expected[name]) for name in state)
    times = torch.full((2,), 500.0)
    with torch.no_grad():
        torch.testing.assert_close(ready(X, times), plain(X, times), atol=1e-5, rtol=0)


@pytest.mark.parametrize('probed', [True, False])
def test_what_fails_with_channels_innermost_keeps_its_layout(probed):
    viewing = Viewing()
    ready = ready_to_restore(viewing, 'cpu', (lambda: viewing(X)) if probed else None)
    if probed:
        assert ready(X).shape == (2, 4 * 14 * 14)
    else:  # or nothing is tested here
        with pytest.raises(RuntimeError, match='view'):
            ready(X)


def test_other_devices_keep_the_layout():
    assert not ready_to_restore(nn.Conv2d(3, 4, 3), 'meta').weight.is_contiguous(memory_format=torch.channels_last)
