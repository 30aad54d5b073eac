"""Tiles: a cover without overlap, equal to the whole image where the halo is wide enough, and the noise of the whole image."""
import pytest
import torch
from torch import nn

from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.reporting.peers import PeerRestorer
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.seeding import PerImageNoise
from ibmd_basicsr.utils.tiling import NoiseField, NoiseWindow, Tile, plan_tiles, restore_tiled

RADIUS = 4
"""Pixels that the networks here see around a pixel: four 3x3 convolutions."""


def convolutions(channels_in=3, scale=1):
    layers = [nn.Conv2d(channels_in, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1), nn.GELU(),
              nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
    return nn.Sequential(*layers).eval()


class LocalDenoiser(nn.Module):
    """What a Restorer asks of a network, with a receptive field; it looks at pixels by blocks of 4, so that the corners of tiles matter."""

    size_multiple, in_channels, cond_channels, num_classes = 4, 3, 0, None

    def __init__(self, noise_channels=0):
        super().__init__()
        self.noise_channels = noise_channels
        self.body = convolutions(48 + 16 * noise_channels)
        self.body[-2] = nn.Conv2d(8, 48, 3, padding=1)
        self.body[-1] = nn.PixelShuffle(4)

    def forward(self, x, t, cond=None, z=None, y=None):
        h = x if z is None else torch.cat([x, z], 1)
        return self.body(nn.functional.pixel_unshuffle(h.float(), 4))


def noise(seed=1):
    return PerImageNoise.for_images(seed, ['image'])


@pytest.mark.parametrize('height, width, tile, halo, multiple', [
    (50, 37, 16, 5, 1), (50, 37, 16, 5, 4), (16, 16, 16, 8, 8), (7, 90, 13, 0, 4), (33, 33, 32, 40, 2), (5, 5, 64, 8, 8), (9, 9, 0, 8, 4),
])
def test_cores_cover_the_image_once(height, width, tile, halo, multiple):
    count = torch.zeros(height, width)
    for part in plan_tiles(height, width, tile, halo, multiple):
        count[part.core] += 1
        for core, outer, side in zip(part.core, part.outer, (height, width)):
            assert 0 <= outer.start <= max(0, core.start - halo) and min(side, core.stop + halo) <= outer.stop <= side
            assert outer.start % multiple == 0 and (outer.stop % multiple == 0 or outer.stop == side)
    assert (count == 1).all()


@pytest.mark.parametrize('height, width, tile, halo, multiple', [
    (50, 37, 16, 5, 1), (50, 37, 16, 5, 4), (16, 16, 16, 8, 8), (7, 90, 13, 0, 4), (130, 77, 19, 3, 8), (2304, 3456, 192, 32, 8),
])
def test_all_tiles_have_one_size(height, width, tile, halo, multiple):
    padded = {tuple(side.stop - side.start + -side.stop % multiple for side in part.outer)
              for part in plan_tiles(height, width, tile, halo, multiple)}
    assert len(padded) == 1
    # no larger than core, halo and the grid ask for
    assert all(side < tile + 2 * halo + 2 * multiple for side in padded.pop())
    if (height, width) == (2304, 3456):
        assert len(plan_tiles(height, width, tile, halo, multiple)) == 12 * 18


@pytest.mark.parametrize('side, count', [(16, 1), (20, 1), (21, 2), (32, 2), (36, 3)])
def test_an_image_that_one_tile_sees_whole_is_not_cut(side, count):
    tiles = plan_tiles(side, 8, 16, 4)  # a core of 16 at the edge sees 4 pixels more
    assert len(tiles) == count and (count > 1 or tiles[0] == Tile((slice(0, side), slice(0, 8)), (slice(0, side), slice(0, 8))))


@pytest.mark.parametrize('scale, multiple', [(1, 1), (2, 1), (4, 8)])
@pytest.mark.parametrize('size', [(50, 37), (33, 64), (11, 90), (9, 8), (1, 1)])
def test_tiled_is_untiled_where_the_halo_is_wide_enough(scale, multiple, size):
    restorer = PeerRestorer(convolutions(scale=scale), 0, scale=scale, size_multiple=multiple)
    lq = torch.rand(1, 3, *size)
    whole = restorer(lq, noise())
    assert whole.shape == (1, 3, scale * size[0], scale * size[1])
    torch.testing.assert_close(restore_tiled(restorer, lq, noise(), scale=scale, tile=16, halo=RADIUS), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(restore_tiled(restorer, lq, noise(), scale=scale, tile=13, halo=9), whole, atol=1e-6, rtol=0)


def test_a_halo_that_is_too_narrow_shows():
    restorer = PeerRestorer(convolutions(), 0, scale=1)
    lq = torch.rand(1, 3, 40, 40)
    assert (restore_tiled(restorer, lq, noise(), scale=1, tile=16, halo=1) - restorer(lq, noise())).abs().max() > 1e-4


def test_upsampled_input_needs_two_pixels_more():
    restorer = PeerRestorer(convolutions(), 0, scale=3, upsampled_input=True)
    lq = torch.rand(1, 3, 31, 22)
    torch.testing.assert_close(restore_tiled(restorer, lq, noise(), scale=3, tile=10, halo=4), restorer(lq, noise()), atol=1e-6, rtol=0)


@pytest.mark.parametrize('sampler, bridge', [
    ({'type': 'one_step'}, {'type': 'I2SB'}),
    ({'type': 'few_step', 'trained_steps': 2}, {'type': 'I2SB'}),
    ({'type': 'ancestral', 'steps': 2}, {'type': 'I2SB'}),
])
@pytest.mark.parametrize('scale, size', [(1, (121, 37)), (4, (31, 23))])
def test_tiles_of_a_bridge_see_the_noise_of_the_whole_image(sampler, bridge, scale, size):
    net = LocalDenoiser(noise_channels=2 if sampler['type'] != 'ancestral' else 0)
    restorer = Restorer(net=net, bridge=build_bridge(**bridge), sampler=SamplerOptions(**sampler), scale=scale)
    assert restorer.size_multiple == (4 if scale == 1 else 1)
    lq, calls = torch.rand(1, 3, *size), []
    whole = restorer(lq, noise())
    # 16 pixels of the image a call
    halo = 16 * restorer.calls // scale
    tiled = restore_tiled(restorer, lq, noise(), lambda *_: calls.append(1), scale=scale, tile=9, halo=halo)
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)
    count = len(plan_tiles(*size, 9, halo, restorer.size_multiple))
    assert len(calls) == restorer.calls * count and count > 3
    other = restore_tiled(restorer, lq, noise(seed=2), scale=scale, tile=9, halo=halo)
    assert (other - whole).abs().max() > 1e-3


def test_masks_are_cut_with_the_image():
    net = LocalDenoiser()
    restorer = Restorer(net=net, bridge=build_bridge(type='I2SB', hole='noise'), sampler=SamplerOptions(type='one_step'))
    lq, mask = torch.rand(1, 3, 40, 36), torch.zeros(1, 1, 40, 36)
    mask[..., 10:30, 5:25] = 1
    whole = restorer(lq, noise(), mask=mask)
    tiled = restore_tiled(restorer, lq, noise(), scale=1, tile=12, halo=16, mask=mask)
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)
    known = (mask == 0).expand_as(lq)
    assert torch.equal(tiled[known], lq[known]) and not torch.equal(tiled, lq)


@pytest.mark.parametrize('kept_bytes', [0, 4 * 2 * 4 * 20 * 30, 2**20], ids=['first alone', 'two of three', 'all'])
def test_noise_windows_are_cuts_of_the_field(kept_bytes):
    """For two images; draws that are not kept are made again for each window, with the same numbers."""
    source = PerImageNoise.for_images(1, ['a', 'b'])
    whole = [source.randn_like(torch.empty(2, channels, 20, 30)) for channels in (3, 1, 2)]
    source = PerImageNoise.for_images(1, ['a', 'b'])
    field = NoiseField(source, (20, 30), kept_bytes)
    corners = ((0, 0), (4, 7), (12, 21))
    for group in (corners[:1], corners[1:], corners):
        window = NoiseWindow(field, group)
        for full in whole:
            parts = window.randn_like(torch.empty(2 * len(group), full.shape[1], 8, 9, dtype=torch.float64))
            assert torch.equal(parts, torch.cat([full[..., y:y + 8, x:x + 9] for y, x in group]).double())
    assert len(field.kept) == {0: 1, 2**20: 3}.get(kept_bytes, 2)
    assert torch.equal(source.randn(3, 20, 30), whole[0])  # the source has not moved
    with pytest.raises(ValueError, match='batch of 3 images meets the noise of 4'):
        NoiseWindow(field, corners[:2]).randn_like(torch.empty(3, 3, 8, 9))


@pytest.mark.parametrize('sampler', [{'type': 'one_step'}, {'type': 'ancestral', 'steps': 3}])
def test_a_field_is_drawn_once_for_all_tiles(sampler, monkeypatch):
    drawn = []
    randn = PerImageNoise.randn
    monkeypatch.setattr(PerImageNoise, 'randn', lambda self, *shape: drawn.append(shape) or randn(self, *shape))
    restorer = Restorer(net=LocalDenoiser(3 if sampler['type'] == 'one_step' else 0), bridge=build_bridge(type='I2SB'),
                        sampler=SamplerOptions(**sampler))
    restore_tiled(restorer, torch.rand(1, 3, 40, 37), noise(), scale=1, tile=8, halo=4)
    assert drawn == [(3, 40, 40)] * (1 if sampler['type'] == 'one_step' else 2)  # padded to 4; no noise at the last step


@pytest.mark.parametrize('batch', [2, 3, 100])
@pytest.mark.parametrize('size', [(40, 36), (41, 35)])
def test_batches_of_tiles_change_nothing(batch, size):
    """Two images, masks and labels; at (41, 35) the last tiles have shapes of their own."""
    seen = []

    class Labelled(LocalDenoiser):
        num_classes = 7

        def forward(self, x, t, cond=None, z=None, y=None):
            seen.append(len(x))
            return super().forward(x, t, z=z) + y[:, None, None, None] / 10

    restorer = Restorer(net=Labelled(2), bridge=build_bridge(type='I2SB', hole='noise'), sampler=SamplerOptions(type='few_step', steps=2))
    lq, mask = torch.rand(2, 3, *size), (torch.rand(2, 1, *size) > 0.5).float()
    options = {'scale': 1, 'tile': 12, 'halo': 4, 'mask': mask, 'labels': torch.tensor([1, 5])}
    images = PerImageNoise.for_images(3, ['a', 'b'])
    one, calls = restore_tiled(restorer, lq, images.copy(), **options), len(seen)
    assert set(seen) == {2}
    many = restore_tiled(restorer, lq, images.copy(), batch=batch, **options)
    # the same sums, in the order that convolutions choose for the size of the batch
    torch.testing.assert_close(many, one, atol=2e-6, rtol=0)
    assert max(seen[calls:]) == 2 * min(batch, 12 if size == (40, 36) else 6) and sum(seen[calls:]) == sum(seen[:calls])


def test_a_batch_has_a_tile_at_least():
    with pytest.raises(ValueError, match='batch must be at least 1, got 0'):
        restore_tiled(lambda lq: lq, torch.rand(1, 3, 9, 9), noise(), scale=1, batch=0)


def test_an_image_that_fits_into_a_tile_is_not_cut():
    seen = []

    def restorer(lq, noise, *, on_step, mask, labels):
        seen.append((lq.shape, noise, mask, labels))
        return lq

    lq, source = torch.rand(1, 3, 16, 12), noise()
    assert restore_tiled(restorer, lq, source, scale=1, tile=16, halo=4) is lq
    assert seen == [(lq.shape, source, None, None)]
