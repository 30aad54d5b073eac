"""The degradations against MATLAB's imresize, libjpeg, and plain float64 recomputations of I2SB's operators (arXiv 2302.05872)."""
import io

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from scipy.fft import dctn, idctn
from tiny import REPOSITORY

from ibmd_basicsr.data.degradations import _symmetric_index, build_degradation, canny_edges, sr_bicubic, sr_pool
from ibmd_basicsr.data.jpeg import CHROMA_TABLE, LUMA_TABLE, jpeg_i2sb, jpeg_libjpeg, quantisation_table
from ibmd_basicsr.data.masks import center_mask, fill_hole, freeform_mask
from ibmd_basicsr.data.tensors import quantize_uint8, to_uint8
from ibmd_basicsr.utils.errors import OptionError

# ITU-T T.81 annex K, tables K.1 and K.2
ANNEX_K_LUMA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])
ANNEX_K_CHROMA = np.array([
    [17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99], [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99], *[[99] * 8] * 4])


def noise(*shape, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def photo(name: str, size: int = 128) -> torch.Tensor:
    """Read the upper left corner of a photograph of the repository as (3, H, W), RGB, [0, 1]."""
    bgr = cv2.imread(str(REPOSITORY / f'datasets/photos/test/{name}.png'))[:size, :size]
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1).float() / 255


def colourful(*size) -> torch.Tensor:
    """Return a smooth picture of saturated colours: chroma survives the decimation, rounding is generic."""
    coarse = np.random.default_rng(0).random((4, 4, 3))
    picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return torch.from_numpy(picture).permute(2, 0, 1).float()


def as_bytes(x: torch.Tensor) -> np.ndarray:
    """Return (H, W, 3), RGB, uint8."""
    return (x * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def mean_levels(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean absolute difference in grey levels of 8 bits."""
    return 255 * (a - b).abs().mean().item()


# ---- super-resolution

def cubic(t: float) -> float:
    """The cubic convolution kernel of Keys with a = -1/2."""
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def published_bicubic(x: np.ndarray) -> np.ndarray:
    """I2SB's x4 operator: 16 taps, symmetric edge-repeating borders, stride 4; rows, then columns, in float64."""
    kernel = np.array([cubic((i - 7.5) / 4) for i in range(16)])
    kernel /= kernel.sum()
    for axis in (-2, -1):
        x = np.moveaxis(x, axis, -1)
        size = x.shape[-1]
        padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(6, 6)], mode='symmetric')
        # sample j covers 4j-6 .. 4j+9, which the padding moved to 4j .. 4j+15
        x = np.stack([padded[..., 4 * j:4 * j + 16] @ kernel for j in range(size // 4)], axis=-1)
        x = np.moveaxis(x, -1, axis)
    return x


@pytest.mark.parametrize('size, scale', [((64, 48), 4), ((12, 36), 4), ((20, 28), 4), ((10, 14), 2), ((64, 32), 2), ((9, 15), 3)])
def test_bicubic_is_matlabs_imresize(size, scale):
    x = noise(3, *size)
    small = sr_bicubic(x, scale)
    assert small.shape == (3, size[0] // scale, size[1] // scale)
    torch.testing.assert_close(small, imresize(x, 1 / scale), rtol=0, atol=2e-6)


@pytest.mark.parametrize('size', [(64, 48), (4, 36), (12, 36), (36, 4), (8, 8)])
def test_bicubic_is_the_published_operator(size):
    x = noise(3, *size, dtype=torch.float64)
    expected = published_bicubic(x.numpy())
    np.testing.assert_allclose(sr_bicubic(x).numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sr_bicubic(x.float()).numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize('operator', [sr_bicubic, sr_pool])
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_constant_stays_constant(operator, scale):
    small = operator(torch.full((3, 2 * scale, 5 * scale), 0.37, dtype=torch.float64), scale)
    torch.testing.assert_close(small, torch.full_like(small, 0.37), rtol=0, atol=1e-12)


def test_bicubic_overshoots_at_a_step():
    step = torch.zeros(3, 32, 32)
    step[..., 18:] = 1
    small = sr_bicubic(step)
    assert small.max() > 1.01 and small.min() < -0.01


@pytest.mark.parametrize('scale', [2, 4])
def test_pool_is_the_block_mean_and_opencvs_area(scale):
    levels = torch.randint(0, 256, (3, 8 * scale, 5 * scale), dtype=torch.float64)
    blocks = levels.reshape(3, 8, scale, 5, scale).sum((2, 4)) / scale**2  # sums of integers and a power of two: exact
    assert torch.equal(sr_pool(levels, scale), blocks)
    area = cv2.resize(levels.permute(1, 2, 0).numpy(), None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    assert torch.equal(sr_pool(levels, scale), torch.from_numpy(area).permute(2, 0, 1))


@pytest.mark.parametrize('operator', [sr_bicubic, sr_pool])
def test_gradient_of_sr_spreads_what_comes_in(operator):
    x = noise(3, 16, 24, dtype=torch.float64).requires_grad_()
    operator(x).sum().backward()
    assert x.grad.sum().item() == pytest.approx(3 * 4 * 6, abs=1e-9)  # the weights of each output sum to 1
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize('operator', [sr_bicubic, sr_pool])
def test_sizes_off_the_grid_are_refused(operator):
    with pytest.raises(ValueError, match=r'multiples of the scale 4, got \(16, 18\)'):
        operator(noise(3, 16, 18))


def test_sr_is_rounded_to_8_bits_unless_told():
    x = noise(3, 32, 32).round()  # black and white pixels overshoot
    rng = np.random.default_rng(0)
    plain = build_degradation({'type': 'sr', 'quantize': False})(x, rng)
    assert torch.equal(plain, sr_bicubic(x))
    assert torch.equal(build_degradation({'type': 'sr'})(x, rng), (plain.clamp(0, 1) * 255).round() / 255)
    pooled = build_degradation({'type': 'sr', 'kernel': 'pool', 'scale': 2, 'quantize': False})(x, rng)
    assert torch.equal(pooled, sr_pool(x, 2))


# ---- JPEG as files hold it

@pytest.mark.parametrize('quality', [5, 10, 30, 90])
@pytest.mark.parametrize('size', [(64, 48), (37, 51), (1, 7)])
def test_libjpeg_is_bit_identical_with_the_codec(size, quality):
    x = quantize_uint8(colourful(*size) * 0.8 + 0.2 * noise(3, *size))
    ours = jpeg_libjpeg(x, quality)
    assert torch.equal((ours * 255).round() / 255, ours)  # 8-bit grid

    _, code = cv2.imencode('.jpg', as_bytes(x)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    np.testing.assert_array_equal(as_bytes(ours), cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])

    file = io.BytesIO()
    PIL.Image.fromarray(as_bytes(x)).save(file, 'JPEG', quality=quality)
    np.testing.assert_array_equal(as_bytes(ours), np.asarray(PIL.Image.open(file)))


def test_libjpeg_clamps_and_rounds_what_it_is_given():
    x = noise(3, 16, 16) * 2 - 0.5
    assert torch.equal(jpeg_libjpeg(x, 30), jpeg_libjpeg(quantize_uint8(x), 30))


# ---- I2SB's JPEG

def published_jpeg(x: np.ndarray, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """I2SB's JPEG of an image (3, H, W) in [-1, 1], written block by block."""
    def through_dct(plane, table):
        out = np.empty_like(plane)
        for top in range(0, plane.shape[0], 8):
            for left in range(0, plane.shape[1], 8):
                block = (slice(top, top + 8), slice(left, left + 8))
                coefficients = np.round(dctn(plane[block] - 128, norm='ortho') / table)
                out[block] = idctn(coefficients * table, norm='ortho') + 128
        return out

    r, g, b = (x + 1) / 2 * 255
    y = .299 * r + .587 * g + .114 * b
    cb = -.1687 * r - .3313 * g + .5 * b + 128
    cr = .5 * r - .4187 * g - .0813 * b + 128
    y = through_dct(y, luma)
    # every second pixel goes in, each comes out four times
    cb, cr = (np.kron(through_dct(plane[::2, ::2], chroma), np.ones((2, 2))) - 128 for plane in (cb, cr))
    rgb = np.stack([y - 3.682e-5 * cb + 1.40199 * cr, y - .344113 * cb - .714104 * cr, y + 1.77198 * cb - 1.3458e-4 * cr])
    return rgb / 255 * 2 - 1


def tables(quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale annex K as published."""
    factor = 5000 / quality if quality < 50 else 200 - 2 * quality
    return tuple(np.clip(np.floor((factor * table + 50) / 100), 1, 255) for table in (ANNEX_K_LUMA, ANNEX_K_CHROMA))


@pytest.mark.parametrize('quality', [5, 10, 30, 90, 100])  # at 100 every table entry is 1: rounding hides least
def test_i2sb_jpeg_is_the_published_operator_in_other_units(quality):
    x = 0.9 * colourful(32, 48).double() + 0.1 * noise(3, 32, 48, dtype=torch.float64)
    expected = (published_jpeg(2 * x.numpy() - 1, *tables(quality)) + 1) / 2
    np.testing.assert_allclose(jpeg_i2sb(x, quality).numpy(), expected, rtol=0, atol=1e-10)


def test_i2sb_jpeg_of_float32_is_rounded_only_at_the_end():
    x = colourful(32, 32)
    assert torch.equal(jpeg_i2sb(x, 10), jpeg_i2sb(x.double(), 10).float())


def test_i2sb_jpeg_is_not_clamped():
    saturated = noise(3, 32, 32).round()
    out = jpeg_i2sb(saturated, 5)
    assert out.min() < -0.05 and out.max() > 1.05


@pytest.mark.parametrize('size', [(24, 32), (32, 40), (15, 16)])
def test_i2sb_jpeg_refuses_other_sizes(size):
    with pytest.raises(ValueError, match=rf'multiples of 16, got \({size[0]}, {size[1]}\)'):
        jpeg_i2sb(noise(3, *size), 10)


@pytest.mark.parametrize('quality', [5, 10])
def test_the_codecs_differ_in_colour_and_agree_in_grey(quality):
    x = photo('coffee')
    assert mean_levels(jpeg_i2sb(x, quality), jpeg_libjpeg(x, quality)) > 1
    grey = quantize_uint8(x.mean(0, keepdim=True)).expand(3, -1, -1)
    assert mean_levels(jpeg_i2sb(grey, quality).clamp(0, 1), jpeg_libjpeg(grey, quality)) < 0.5


@pytest.mark.parametrize('codec, function', [('i2sb', jpeg_i2sb), ('libjpeg', jpeg_libjpeg)])
def test_codec_is_the_one_that_was_named(codec, function):
    x = colourful(32, 32)
    degradation = build_degradation({'type': 'jpeg', 'codec': codec, 'quality': 10})
    assert torch.equal(degradation(x, np.random.default_rng(0)), function(x, 10))
    assert degradation.size_multiple == (16 if codec == 'i2sb' else 1)


def test_quality_50_is_annex_k():
    np.testing.assert_array_equal(quantisation_table(LUMA_TABLE, 50), ANNEX_K_LUMA)
    np.testing.assert_array_equal(quantisation_table(CHROMA_TABLE, 50), ANNEX_K_CHROMA)


def test_tables_worked_out_by_hand():
    luma, chroma = quantisation_table(LUMA_TABLE, 10), quantisation_table(CHROMA_TABLE, 10)
    # factor 500: 16 -> floor(80.5), 11 -> floor(55.5), 40 -> floor(200.5), 51 -> floor(255.5), 61 -> floor(305.5), capped
    assert luma[0, [0, 1, 5, 6, 7]].tolist() == [80, 55, 200, 255, 255]
    assert chroma[0, :4].tolist() == [85, 90, 120, 235]
    # factor 20: 16 -> floor(3.7), 61 -> floor(12.7)
    assert quantisation_table(LUMA_TABLE, 90)[0, [0, 7]].tolist() == [3, 12]


def test_tables_stay_within_a_byte():
    for table in (LUMA_TABLE, CHROMA_TABLE):
        assert quantisation_table(table, 1).unique().tolist() == [255]
        assert quantisation_table(table, 100).unique().tolist() == [1]


@pytest.mark.parametrize('quality, same', [(5, True), (10, True), (50, True), (90, True), (30, False)])
def test_tables_are_libjpegs_where_5000_is_divisible(quality, same):
    """At 30 libjpeg truncates 5000/30 to 166, I2SB does not: 61 becomes 101 and 102."""
    file = io.BytesIO()
    PIL.Image.new('RGB', (8, 8)).save(file, 'JPEG', quality=quality)
    written = PIL.Image.open(file).quantization
    ours = [quantisation_table(table, quality).flatten().tolist() for table in (LUMA_TABLE, CHROMA_TABLE)]
    assert (ours == [list(written[0]), list(written[1])]) == same
    if not same:
        assert (written[0][7], ours[0][7]) == (101, 102)


# ---- inpainting

BANDS = [(0.1, 0.2), (0.2, 0.3), (0.01, 0.02), (0.5, 0.55), (0.9, 0.95)]


def test_center_mask_is_the_middle_quarter():
    mask = center_mask(16, 24)
    assert mask.shape == (1, 16, 24) and mask.dtype == torch.float32
    assert mask[:, 4:12, 6:18].min() == 1 and mask.sum() == 8 * 12
    odd = center_mask(33, 47)  # rows 8 .. 23, columns 11 .. 34
    assert odd[:, 8:24, 11:35].min() == 1 and odd.sum() == 16 * 24


@pytest.mark.parametrize('size', [(16, 16), (33, 47), (17, 200), (256, 256)])
@pytest.mark.parametrize('band', BANDS)
def test_freeform_masks_keep_to_the_band(size, band):
    masks = [freeform_mask(*size, band, np.random.default_rng(seed)) for seed in range(50)]
    for mask in masks:
        assert mask.shape == (1, *size) and mask.dtype == torch.float32 and mask.unique().tolist() == [0, 1]
        assert band[0] <= mask.double().mean().item() <= band[1]
    assert len({mask.numpy().tobytes() for mask in masks}) > 45


@pytest.mark.parametrize('band, pixels', [((0.295, 0.3), 30), ((0.3, 0.305), 30), ((0.565, 0.57), 57)])
def test_freeform_mask_finds_the_only_number_of_pixels(band, pixels):
    """Bounds belong to the band, also where their product with the area is off by rounding (0.57 * 100 < 57)."""
    for seed in range(10):
        assert freeform_mask(10, 10, band, np.random.default_rng(seed)).sum() == pixels


def test_band_that_holds_no_pixel_is_refused():
    with pytest.raises(ValueError, match='no hole in 16x16 pixels covers between 0.15 and 0.151 of the area'):
        freeform_mask(16, 16, (0.15, 0.151), np.random.default_rng(0))


def test_freeform_holes_are_strokes_and_may_lie_anywhere():
    masks = torch.stack([freeform_mask(64, 64, (0.1, 0.2), np.random.default_rng(seed))[0] for seed in range(300)])
    shares = masks.mean(0).unflatten(0, (4, 16)).unflatten(2, (4, 16)).mean((1, 3))  # of 4 x 4 blocks
    assert shares.min() > 0.05 and shares.max() < 0.35
    # most pixels of a stroke lie next to another one; of scattered pixels a share of 0.15 would
    beside = (masks[:, :, 1:] * masks[:, :, :-1]).sum() / masks[:, :, 1:].sum()
    assert beside > 0.8


def test_freeform_mask_is_a_function_of_the_generators_state():
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    first = [freeform_mask(32, 40, (0.1, 0.2), rng) for _ in range(4)]
    assert all(map(torch.equal, first, [freeform_mask(32, 40, (0.1, 0.2), again) for _ in range(4)]))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize('fill, value', [(None, 0.5), ('grey', 0.5), ('white', 1.0)])
@pytest.mark.parametrize('mask', ['center', 'freeform'])
def test_inpainting_changes_the_hole_alone(mask, fill, value):
    options = {'type': 'inpaint', 'mask': mask} | ({'fill': fill} if fill else {})
    degradation, x = build_degradation(options), noise(3, 32, 48)
    assert degradation.scale == degradation.size_multiple == 1
    lq, drawn = degradation.degrade(x, np.random.default_rng(1))
    assert torch.equal(lq, degradation(x, np.random.default_rng(1))) and torch.equal(lq, fill_hole(x, drawn, value))
    hole = drawn.bool().expand_as(x)
    assert torch.equal(lq[~hole], x[~hole]) and lq[hole].unique().tolist() == [value]
    assert 0.1 <= drawn.mean() <= 0.25


def test_freeform_ratio_is_handed_on():
    degradation = build_degradation({'type': 'inpaint', 'mask': 'freeform', 'ratio': [0.4, 0.5]})
    assert 0.4 <= degradation.degrade(noise(3, 32, 32), np.random.default_rng(0))[1].mean() <= 0.5


# ---- edges

def test_edges_are_black_lines_where_the_picture_steps():
    step = torch.zeros(3, 32, 40)
    step[..., 20:] = 1
    edges = canny_edges(step, 100, 200, 1.0)
    assert edges.shape == step.shape and edges.unique().tolist() == [0, 1]
    black = (edges[0] == 0).nonzero()
    assert set(black[:, 1].tolist()) <= {19, 20} and set(black[:, 0].tolist()) == set(range(32)) and len(black) == 32


def test_edges_are_opencvs():
    x = photo('coffee')
    grey = cv2.GaussianBlur(cv2.cvtColor(as_bytes(x), cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    degradation = build_degradation({'type': 'edges', 'low': 50, 'high': 120, 'blur': 1.5})
    assert degradation.scale == degradation.size_multiple == 1
    lq = degradation(x, np.random.default_rng(0))
    for channel in lq:
        np.testing.assert_array_equal(channel.numpy() * 255, 255 - cv2.Canny(grey, 50, 120))
    assert 0.01 < (lq == 0).float().mean() < 0.3


def test_blur_removes_edges_and_none_is_possible():
    x = photo('coffee')
    sharp, usual = canny_edges(x, 100, 200, 0), build_degradation({'type': 'edges'})(x, np.random.default_rng(0))
    assert torch.equal(usual, canny_edges(x, 100, 200, 1.0))
    np.testing.assert_array_equal(sharp[0].numpy() * 255, 255 - cv2.Canny(cv2.cvtColor(as_bytes(x), cv2.COLOR_RGB2GRAY), 100, 200))
    assert 0 < (usual == 0).sum() < (sharp == 0).sum()


def test_picture_without_edges_is_white():
    assert canny_edges(torch.full((3, 16, 16), 0.3), 100, 200, 1.0).unique().tolist() == [1]


# ---- all of them

OPERATORS = {'bicubic': sr_bicubic, 'pool': sr_pool, 'libjpeg': lambda x: jpeg_libjpeg(x, 10), 'i2sb': lambda x: jpeg_i2sb(x, 10),
             'hole': lambda x: fill_hole(x, center_mask(*x.shape[-2:]), 0.5), 'edges': lambda x: canny_edges(x, 100, 200, 1.0)}


@pytest.mark.parametrize('operator', OPERATORS.values(), ids=OPERATORS)
def test_batch_equals_its_images_one_by_one(operator):
    batch = noise(3, 3, 32, 48)
    assert torch.equal(operator(batch), torch.stack([operator(x) for x in batch]))


@pytest.mark.parametrize('operator', OPERATORS.values(), ids=OPERATORS)
def test_dtype_stays_and_the_input_is_not_touched(operator):
    x = noise(3, 32, 48)
    before = x.clone()
    assert operator(x).dtype == torch.float32 and operator(x.double()).dtype == torch.float64
    assert torch.equal(x, before)


def test_to_uint8_clamps_and_rounds():
    image = torch.tensor([-0.1, 0.501 / 255, 1.2]).view(3, 1, 1)
    assert to_uint8(image).dtype == np.uint8 and to_uint8(image).tolist() == [[[0, 1, 255]]]


@pytest.mark.parametrize('options', [
    {'type': 'sr'}, {'type': 'jpeg', 'codec': 'libjpeg', 'quality': 10}, {'type': 'inpaint', 'mask': 'center'}, {'type': 'edges'}],
    ids=lambda options: options['type'])
def test_only_holes_have_masks(options):
    x = noise(3, 32, 32)
    lq, mask = build_degradation(options).degrade(x, np.random.default_rng(0))
    assert torch.equal(lq, build_degradation(options)(x, np.random.default_rng(0)))
    assert (mask is not None) == (options['type'] == 'inpaint')


# ---- randomness

@pytest.mark.parametrize('codec', ['libjpeg', 'i2sb'])
def test_quality_range_is_drawn_from_the_generator_that_is_given(codec):
    x = noise(3, 16, 16)
    degradation = build_degradation({'type': 'jpeg', 'codec': codec, 'quality': [10, 60]})
    rng, again, other = (np.random.default_rng(seed) for seed in (5, 5, 6))
    first = [degradation(x, rng) for _ in range(8)]
    assert all(map(torch.equal, first, [degradation(x, again) for _ in range(8)]))
    assert not all(map(torch.equal, first, [degradation(x, other) for _ in range(8)]))


def test_quality_range_includes_both_ends():
    x = noise(3, 16, 16)
    degradation, rng = build_degradation({'type': 'jpeg', 'codec': 'libjpeg', 'quality': (10, 12)}), np.random.default_rng(0)
    results = [degradation(x, rng) for _ in range(40)]
    at = {quality: jpeg_libjpeg(x, quality) for quality in (10, 11, 12)}
    counts = [sum(torch.equal(result, value) for result in results) for value in at.values()]
    assert min(counts) > 5 and sum(counts) == 40


@pytest.mark.parametrize('options', [
    {'type': 'sr'}, {'type': 'sr', 'kernel': 'pool'}, {'type': 'jpeg', 'codec': 'libjpeg', 'quality': 10},
    {'type': 'jpeg', 'codec': 'i2sb', 'quality': 10}, {'type': 'inpaint', 'mask': 'center'}, {'type': 'edges'}],
    ids=lambda options: '-'.join(map(str, options.values())))
def test_fixed_degradations_draw_nothing(options):
    rng, degradation, x = np.random.default_rng(0), build_degradation(options), noise(3, 32, 32)
    state, global_state = rng.bit_generator.state, torch.get_rng_state()
    assert torch.equal(degradation(x, rng), degradation(x, rng))
    assert rng.bit_generator.state == state and torch.equal(torch.get_rng_state(), global_state)


# ---- options

@pytest.mark.parametrize('options, message', [
    (None, "one of 'sr', 'jpeg', 'inpaint', 'edges', got None"),
    ({'scale': 4}, "one of 'sr', 'jpeg', 'inpaint', 'edges', got None"),
    ({'type': 'blur'}, "one of 'sr', 'jpeg', 'inpaint', 'edges', got 'blur'"),
    ({'type': 'sr', 'kernal': 'pool'}, "unknown key 'kernal', did you mean 'kernel'?"),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quallity': 10}, "unknown key 'quallity', did you mean 'quality'?"),
    ({'type': 'jpeg', 'quality': 10}, "missing 'codec'"),
    ({'type': 'jpeg', 'codec': 'libjpeg'}, "missing 'quality'"),
    ({'type': 'jpeg', 'codec': 'cv2', 'quality': 10}, "one of ('libjpeg', 'i2sb'), got 'cv2'"),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': 0}, 'an integer in 1..100, got 0'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': 101}, 'an integer in 1..100, got 101'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': 10.5}, 'an integer in 1..100, got 10.5'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': True}, 'an integer in 1..100, got True'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [True, 50]}, 'an integer in 1..100, got True'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [10]}, 'must be one number or two, [lowest, highest], got [10]'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [10, 20, 30]}, 'must be one number or two, [lowest, highest], got [10, 20, 30]'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [90, 10]}, 'must be [lowest, highest], in this order, got [90, 10]'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [10, 101]}, 'an integer in 1..100, got 101'),
    ({'type': 'jpeg', 'codec': 'i2sb', 'quality': [5.5, 10]}, 'an integer in 1..100, got 5.5'),
    ({'type': 'sr', 'kernel': 'lanczos'}, "one of ('bicubic', 'pool'), got 'lanczos'"),
    ({'type': 'sr', 'scale': 0}, 'a positive integer, got 0'),
    ({'type': 'sr', 'scale': 4.0}, 'a positive integer, got 4.0'),
    ({'type': 'inpaint'}, "missing 'mask'"),
    ({'type': 'inpaint', 'mask': 'box'}, "one of ('center', 'freeform'), got 'box'"),
    ({'type': 'inpaint', 'mask': 'center', 'fil': 'grey'}, "unknown key 'fil', did you mean 'fill'?"),
    ({'type': 'inpaint', 'mask': 'center', 'fill': 'black'}, "one of ('grey', 'white'), got 'black'"),
    ({'type': 'inpaint', 'mask': 'center', 'ratio': [0.1, 0.2]}, 'ratio belongs to mask: freeform, not to center'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': [0.2, 0.1]}, 'two rising numbers between 0 and 1, got [0.2, 0.1]'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': [0, 0.1]}, 'two rising numbers between 0 and 1, got [0, 0.1]'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': [10, 20]}, 'two rising numbers between 0 and 1, got [10, 20]'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': 0.1}, 'two rising numbers between 0 and 1, got 0.1'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': [0.1, 0.2, 0.3]}, 'two rising numbers between 0 and 1, got'),
    ({'type': 'inpaint', 'mask': 'freeform', 'ratio': ['a', 0.2]}, 'two rising numbers between 0 and 1, got'),
    ({'type': 'edges', 'hight': 200}, "unknown key 'hight', did you mean 'high'?"),
    ({'type': 'edges', 'low': 200, 'high': 100}, '0 <= low <= high, got 200 and 100'),
    ({'type': 'edges', 'low': -1}, '0 <= low <= high, got -1 and 200'),
    ({'type': 'edges', 'low': 'x'}, "low must be a finite number, got 'x'"),
    ({'type': 'edges', 'blur': -1}, '0 or more, got -1'),
], ids=str)
def test_bad_options_are_named_in_one_line(options, message):
    with pytest.raises(OptionError) as error:
        build_degradation(options, 'datasets.train.degradation')
    text = str(error.value)
    assert text.startswith('datasets.train.degradation') and message in text and '\n' not in text


@pytest.mark.parametrize('shape', [(3, 4, 8), (3, 64, 64), (2, 3, 20, 12)])
@pytest.mark.parametrize('scale', [2, 4])
def test_bicubic_on_borders_made_by_indexing_is_the_same_to_the_bit(shape, scale):
    """As samples were made before the borders were copied alone; also where an image is smaller than its border."""
    x = torch.rand(shape)
    rows, columns = (_symmetric_index(size, 2 * scale) for size in shape[-2:])
    padded = x.reshape(-1, *shape[-3:])[:, :, rows][:, :, :, columns]
    plain = torch.nn.functional.interpolate(padded, scale_factor=1 / scale, mode='bicubic', antialias=True)[..., 2:-2, 2:-2]
    assert torch.equal(sr_bicubic(x, scale), plain.reshape(*shape[:-2], shape[-2] // scale, shape[-1] // scale))
