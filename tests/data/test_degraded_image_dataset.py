"""DegradedImageDataset: what a sample holds, where the images come from, what a draw depends on, and what is refused."""
import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils import FileClient
from tiny import make_photos
from torch.utils.data import DataLoader

from ibmd_basicsr.compat.iteration_sampler import Draw, IterationSampler
from ibmd_basicsr.data.degradations import build_degradation
from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset, gradient_energy
from ibmd_basicsr.data.lmdb_writer import create_lmdb
from ibmd_basicsr.utils.errors import OptionError

SR = {'type': 'sr', 'scale': 4}
I2SB_JPEG = {'type': 'jpeg', 'codec': 'i2sb', 'quality': 10}
LIBJPEG = {'type': 'jpeg', 'codec': 'libjpeg', 'quality': [5, 60]}
CENTER = {'type': 'inpaint', 'mask': 'center', 'fill': 'white'}
FREEFORM = {'type': 'inpaint', 'mask': 'freeform', 'ratio': [0.1, 0.2]}
EDGES = {'type': 'edges'}


@pytest.fixture
def photos(tmp_path):
    """A folder with three pictures of 40 x 48 pixels."""
    return make_photos(tmp_path / 'photos')


def dataset(folder, degradation=SR, **changes) -> DegradedImageDataset:
    return DegradedImageDataset({'name': 'photos', 'phase': 'val', 'dataroot_gt': str(folder), 'degradation': degradation} | changes)


def train(folder, degradation=SR, **changes) -> DegradedImageDataset:
    augment = {'gt_size': 16, 'use_hflip': True, 'use_rot': True, 'manual_seed': 3}
    return dataset(folder, degradation, **{'phase': 'train'} | augment | changes)


def corrupted(folder, **changes) -> DegradedImageDataset:
    return DegradedImageDataset({'name': 'photos', 'phase': 'val', 'dataroot_lq': str(folder), 'scale': 4} | changes)


def save(path, picture):
    """Write a picture (RGB or grey) so that the file's name decides its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    assert cv2.imwrite(str(path), picture if picture.ndim == 2 else picture[..., order[picture.shape[2]]])
    return path


def coordinates(height: int, width: int) -> np.ndarray:
    """Return a picture whose pixels say where they are: red the row, green the column."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(height)[:, None]
    picture[..., 1] = np.arange(width)
    return picture


def levels(x: torch.Tensor) -> np.ndarray:
    """Return (H, W, 3) in grey levels of 8 bits."""
    return (x * 255).round().permute(1, 2, 0).numpy().astype(int)


def same(a: dict, b: dict) -> bool:
    """Compare the tensors of two samples."""
    tensors = [key for key in a if not key.endswith('_path')]
    return tensors == [key for key in b if not key.endswith('_path')] and all(torch.equal(a[key], b[key]) for key in tensors)


def draws(source, count: int = 6, first: int = 0) -> list[dict]:
    return [source[Draw(i % len(source), i)] for i in range(first, first + count)]


# ---- what a sample holds

@pytest.mark.parametrize('degradation, scale', [
    (SR, 4), (SR | {'kernel': 'pool', 'scale': 2}, 2), (LIBJPEG, 1), (I2SB_JPEG, 1), (EDGES, 1)], ids=str)
def test_training_sample(photos, degradation, scale):
    for sample in draws(train(photos, degradation, gt_size=32)):
        assert set(sample) == {'lq', 'gt', 'lq_path', 'gt_path'}
        assert sample['gt'].shape == (3, 32, 32) and sample['lq'].shape == (3, 32 // scale, 32 // scale)
        assert sample['gt'].dtype == sample['lq'].dtype == torch.float32
        assert sample['gt'].min() >= 0 and sample['gt'].max() <= 1 and sample['gt'].max() > 0.3  # and not in 0..255
        assert torch.equal((sample['gt'] * 255).round() / 255, sample['gt'])
        assert sample['lq_path'] == sample['gt_path'] and sample['gt_path'].startswith(str(photos / 'photo_'))


def test_channels_are_red_green_blue(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    save(tmp_path / 'red.png', red)
    sample = dataset(tmp_path)[0]
    for x in (sample['gt'], sample['lq']):
        assert x.mean((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_lq_is_the_degraded_gt(photos):
    sample = dataset(photos)[1]
    assert torch.equal(sample['lq'], build_degradation(SR)(sample['gt'], np.random.default_rng(0)))


@pytest.mark.parametrize('degradation, size', [
    (SR, (40, 48)), (SR | {'scale': 3}, (39, 48)), (I2SB_JPEG, (32, 48)), (LIBJPEG, (41, 50))], ids=str)
def test_validation_cuts_right_and_bottom_to_what_the_degradation_accepts(tmp_path, degradation, size):
    picture = coordinates(41, 50)
    save(tmp_path / 'a.png', picture)
    sample = dataset(tmp_path, degradation)[0]
    scale = degradation.get('scale', 1)
    np.testing.assert_array_equal(levels(sample['gt']), picture[:size[0], :size[1]])
    assert sample['lq'].shape == (3, size[0] // scale, size[1] // scale)


@pytest.mark.parametrize('make', [dataset, train])
def test_without_return_gt_only_gt_is_missing(photos, make):
    both, alone = draws(make(photos)), draws(make(photos, return_gt=False))
    for a, b in zip(both, alone, strict=True):
        assert set(b) == {'lq', 'lq_path'} and torch.equal(a['lq'], b['lq'])


# ---- masks

@pytest.mark.parametrize('degradation', [CENTER, FREEFORM], ids=['center', 'freeform'])
@pytest.mark.parametrize('make', [dataset, train])
@pytest.mark.parametrize('return_gt', [True, False])
def test_masks_come_with_their_images(photos, make, degradation, return_gt):
    fill = {'white': 1.0}.get(degradation.get('fill'), 0.5)
    with_gt = draws(make(photos, degradation))
    for sample, full in zip(draws(make(photos, degradation, return_gt=return_gt)), with_gt, strict=True):
        assert set(sample) == {'lq', 'mask', 'lq_path'} | ({'gt', 'gt_path'} if return_gt else set())
        lq, mask = sample['lq'], sample['mask']
        assert mask.shape == (1, *lq.shape[1:]) and mask.dtype == torch.float32 and mask.unique().tolist() == [0, 1]
        assert torch.equal(mask, full['mask']) and torch.equal(lq, full['lq'])
        hole = mask.bool().expand_as(lq)
        assert torch.equal(lq[~hole], full['gt'][~hole]) and lq[hole].unique().tolist() == [fill]


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_evaluation_masks_depend_on_seed_and_index_alone(photos, phase):
    source = dataset(photos, FREEFORM, phase=phase, manual_seed=3)
    masks = [source[i]['mask'] for i in range(3)]
    again = dataset(photos, FREEFORM, phase=phase, manual_seed=3, return_gt=False)
    assert all(torch.equal(again[i]['mask'], masks[i]) for i in (2, 0, 1))
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(dataset(photos, FREEFORM, phase=phase, manual_seed=4)[0]['mask'], masks[0])


def test_training_masks_differ_from_draw_to_draw(photos):
    source = train(photos, FREEFORM)
    assert len({source[Draw(0, i)]['mask'].numpy().tobytes() for i in range(10)}) > 8


@pytest.fixture
def holed(tmp_path):
    """Pictures of coordinates whose masks say the same by a threshold, in two folders; nothing clean."""
    for name, height, width in (('a', 40, 48), ('sub/b', 33, 50)):
        picture = coordinates(height, width)
        save(tmp_path / 'lq' / f'{name}.png', picture)
        save(tmp_path / 'masks' / f'{name}.bmp', np.where(hole(picture), 255, 0).astype(np.uint8))
    return tmp_path


def hole(picture: np.ndarray) -> np.ndarray:
    """Return a pattern (H, W) of a picture of coordinates that no flip or rotation maps to itself."""
    return (picture[..., 0].astype(int) * 3 + picture[..., 1] * 5) % 11 < 3


def test_masks_of_corrupted_photographs(holed):
    for sample in draws(corrupted(holed / 'lq', dataroot_mask=str(holed / 'masks'), scale=1), 2):
        assert set(sample) == {'lq', 'mask', 'lq_path'} and sample['mask'].dtype == torch.float32
        np.testing.assert_array_equal(sample['mask'][0].numpy(), hole(levels(sample['lq'])))


@pytest.mark.parametrize('changes', [{}, {'cache': True}, {'detail_crops': 5}], ids=str)
def test_masks_are_cropped_and_turned_with_their_images(holed, changes):
    augment = {'phase': 'train', 'scale': 1, 'gt_size': 16, 'use_hflip': True, 'use_rot': True}
    source = corrupted(holed / 'lq', dataroot_mask=str(holed / 'masks'), **augment, **changes)
    samples = draws(source, 40)
    for sample in samples:
        assert sample['lq'].shape == (3, 16, 16) and sample['mask'].shape == (1, 16, 16)
        np.testing.assert_array_equal(sample['mask'][0].numpy(), hole(levels(sample['lq'])))
    plain = draws(corrupted(holed / 'lq', **augment, **changes), 40)  # the mask changes no choice
    assert all(torch.equal(a['lq'], b['lq']) for a, b in zip(samples, plain, strict=True))


def test_masks_from_an_lmdb(holed):
    for name in ('lq', 'masks'):
        create_lmdb(holed / name, holed / f'{name}.lmdb')
    augment = {'phase': 'train', 'scale': 1, 'gt_size': 16, 'use_rot': True}
    packed = corrupted(holed / 'lq.lmdb', dataroot_mask=str(holed / 'masks.lmdb'), io_backend={'type': 'lmdb'}, **augment)
    assert all(map(same, draws(packed), draws(corrupted(holed / 'lq', dataroot_mask=str(holed / 'masks'), **augment))))


def test_grey_values_of_masks_are_parted_at_the_middle(tmp_path):
    save(tmp_path / 'lq' / 'a.png', coordinates(4, 4))
    save(tmp_path / 'masks' / 'a.png', np.array([[0, 127, 128, 255]] * 4, np.uint8))
    mask = corrupted(tmp_path / 'lq', dataroot_mask=str(tmp_path / 'masks'))[0]['mask']
    assert mask[0].tolist() == [[0, 0, 1, 1]] * 4


def test_missing_mask_is_named(holed):
    (holed / 'masks' / 'sub' / 'b.bmp').unlink()
    with pytest.raises(FileNotFoundError, match=r'masks: no mask for sub/b.png \(1 of 2 images have none\)'):
        corrupted(holed / 'lq', dataroot_mask=str(holed / 'masks'))
    with pytest.raises(FileNotFoundError, match='absent: no such image folder'):
        corrupted(holed / 'lq', dataroot_mask=str(holed / 'absent'))


def test_mask_of_another_size_is_named(holed):
    save(holed / 'masks' / 'a.bmp', np.zeros((48, 40), np.uint8))
    with pytest.raises(OptionError, match='masks/a.bmp: 40x48 pixels, but its image .*lq/a.png has 48x40'):
        corrupted(holed / 'lq', dataroot_mask=str(holed / 'masks'))[0]


# ---- labels

def test_labels_by_path_by_stem_and_by_lmdb_key(photos, tmp_path):
    make_photos(photos / 'deeper', count=1, seed=7)
    save(photos / 'b c.jpg', coordinates(40, 48))
    names = ['b c.jpg', 'deeper/photo_0.png', 'photo_0.png', 'photo_1.png', 'photo_2.png']
    listing = tmp_path / 'labels.txt'
    listing.write_text('photo_0.png 4\n\nphoto_1\t0\nb c.jpg 2\n  deeper/photo_0   3 \nphoto_2.png 999\nunknown.png 7\n')
    expected = [2, 3, 4, 0, 999]
    source = dataset(photos, label_file=str(listing))
    assert source.keys == names
    for sample, label in zip(draws(source, 5), expected, strict=True):
        assert sample['label'].dtype == torch.int64 and sample['label'].shape == () and sample['label'] == label
    create_lmdb(photos, tmp_path / 'photos.lmdb')
    listing.write_text(listing.read_text().replace('b c.jpg', 'b_c'))
    packed = train(tmp_path / 'photos.lmdb', FREEFORM, io_backend={'type': 'lmdb'}, label_file=str(listing), return_gt=False)
    assert [sample['label'].item() for sample in draws(packed, 5)] == expected
    assert set(packed[0]) == {'lq', 'mask', 'label', 'lq_path'}


def test_labels_of_corrupted_photographs_are_collated(photos, tmp_path):
    (tmp_path / 'labels.txt').write_text('photo_0 0\nphoto_1 1\nphoto_2 2\n')
    source = corrupted(photos, label_file=str(tmp_path / 'labels.txt'))
    batch = next(iter(DataLoader(source, batch_size=3)))
    assert batch['label'].dtype == torch.int64 and batch['label'].tolist() == [0, 1, 2]


def test_name_in_full_goes_before_the_stem(tmp_path):
    for name in ('a.bmp', 'a.png'):
        save(tmp_path / 'in' / name, coordinates(8, 8))
    (tmp_path / 'labels.txt').write_text('a 1\na.png 2\n')
    source = dataset(tmp_path / 'in', label_file=str(tmp_path / 'labels.txt'))
    assert [sample['label'].item() for sample in draws(source, 2)] == [1, 2]


@pytest.mark.parametrize('text, message', [
    ('photo_1 1\n', 'labels.txt: no label for photo_0.png (2 of 3 images have none).'),
    ('photo_0 1\nphoto_1\nphoto_2 1\n', "labels.txt: line 2 must be 'name label' with an integer label from 0, got 'photo_1'."),
    ('photo_0 1.5\n', "line 1 must be 'name label' with an integer label from 0, got 'photo_0 1.5'."),
    ('photo_0 -1\n', "line 1 must be 'name label' with an integer label from 0, got 'photo_0 -1'."),
    ('photo_0 1\nphoto_0 2\n', 'line 2 gives photo_0 the label 2, but it has 1 already.'),
], ids=['missing', 'no label', 'fraction', 'negative', 'two labels'])
def test_bad_label_file_is_named_in_one_line(photos, tmp_path, text, message):
    (tmp_path / 'labels.txt').write_text(text)
    with pytest.raises(OptionError) as error:
        dataset(photos, label_file=str(tmp_path / 'labels.txt'))
    assert message in str(error.value) and str(error.value).startswith(str(tmp_path)) and '\n' not in str(error.value)


def test_missing_label_file_is_named(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.txt'):
        dataset(photos, label_file=str(tmp_path / 'absent.txt'))


# ---- corrupted photographs alone

def test_corrupted_photographs_are_handed_out_as_they_are(tmp_path):
    picture = coordinates(7, 9)
    save(tmp_path / 'a.png', picture)
    sample = corrupted(tmp_path)[0]
    assert set(sample) == {'lq', 'lq_path'}
    np.testing.assert_array_equal(levels(sample['lq']), picture)


def test_crop_of_corrupted_photographs_is_smaller_by_the_scale(photos):
    assert corrupted(photos, phase='train', gt_size=32)[0]['lq'].shape == (3, 8, 8)
    assert corrupted(photos, phase='train', gt_size=32, scale=1)[0]['lq'].shape == (3, 32, 32)


def test_no_clean_photograph_is_read(tmp_path, monkeypatch):
    """Even where clean ones lie next to the corrupted ones."""
    make_photos(tmp_path / 'clean')
    make_photos(tmp_path / 'corrupted', seed=1)
    get, read = FileClient.get, []
    monkeypatch.setattr(FileClient, 'get', lambda self, path, *args: read.append(path) or get(self, path, *args))
    draws(corrupted(tmp_path / 'corrupted', phase='train', gt_size=32))
    assert set(read) == {str(tmp_path / 'corrupted' / f'photo_{i}.png') for i in range(3)}


# ---- where images come from

@pytest.mark.parametrize('make', [dataset, train])
@pytest.mark.parametrize('degradation', [SR, LIBJPEG, FREEFORM], ids=['sr', 'jpeg', 'freeform'])
def test_folder_and_lmdb_give_the_same_tensors(photos, tmp_path, make, degradation):
    make_photos(photos / 'deeper', count=2, seed=7)
    save(photos / 'b c.jpg', coordinates(40, 48))
    create_lmdb(photos, tmp_path / 'photos.lmdb')
    folder, packed = make(photos, degradation), make(tmp_path / 'photos.lmdb', degradation, io_backend={'type': 'lmdb'})
    assert len(folder) == len(packed) == 6
    assert all(map(same, draws(folder, 12), draws(packed, 12)))
    assert packed[0]['lq_path'] == str(tmp_path / 'photos.lmdb' / 'b_c')


def test_corrupted_photographs_from_an_lmdb(photos, tmp_path):
    create_lmdb(photos, tmp_path / 'photos.lmdb')
    packed = corrupted(tmp_path / 'photos.lmdb', io_backend={'type': 'lmdb'})
    assert all(map(same, draws(corrupted(photos)), draws(packed)))


def test_an_lmdb_is_opened_once_however_many_datasets_read_it(photos, tmp_path, monkeypatch):
    create_lmdb(photos, tmp_path / 'photos.lmdb')
    opened, lmdb_open = [], lmdb.open
    monkeypatch.setattr(lmdb, 'open', lambda path, **kwargs: opened.append(path) or lmdb_open(path, **kwargs))
    for make in (dataset, train):
        draws(make(tmp_path / 'photos.lmdb', io_backend={'type': 'lmdb'}))
    assert opened == [str(tmp_path / 'photos.lmdb')]


def test_subfolders_are_read_in_the_order_of_names_and_other_files_are_not(tmp_path):
    for name in ('b.png', 'a/z.JPG', 'a/b/c.bmp', 'd.tiff', 'e.webp', 'f.ppm', 'g.jpeg', 'h.tif'):
        save(tmp_path / name, coordinates(8, 8))
    for name in ('notes.txt', 'a/list.csv', 'i.png.part'):
        (tmp_path / name).write_text('no image')
    names = ['a/b/c.bmp', 'a/z.JPG', 'b.png', 'd.tiff', 'e.webp', 'f.ppm', 'g.jpeg', 'h.tif']
    source = dataset(tmp_path)
    assert [source[i]['gt_path'] for i in range(len(source))] == [str(tmp_path / name) for name in names]


def test_meta_info_file_chooses_and_the_template_renames(photos, tmp_path):
    make_photos(tmp_path / 'corrupted', size=(10, 12), seed=1)
    for file in list((tmp_path / 'corrupted').iterdir()):
        file.rename(file.with_name(f'{file.stem}x4.png'))
    (tmp_path / 'corrupted' / 'sub').mkdir()
    save(tmp_path / 'corrupted' / 'sub' / 'cx4.png', coordinates(10, 12))
    listing = tmp_path / 'list.txt'
    listing.write_text('photo_2.png (40,48,3)\n\nphoto_0.png\n')
    assert dataset(photos, meta_info_file=str(listing)).keys == ['photo_2.png', 'photo_0.png']
    listing.write_text('photo_2.png (40,48,3)\nsub/c.png (40,48,3)\n')
    source = corrupted(tmp_path / 'corrupted', meta_info_file=str(listing), filename_tmpl='{}x4')
    assert [source[i]['lq_path'] for i in range(2)] == [str(tmp_path / 'corrupted' / name) for name in ('photo_2x4.png', 'sub/cx4.png')]
    np.testing.assert_array_equal(levels(source[1]['lq']), coordinates(10, 12))


def test_grey_transparent_and_16_bit_images_become_8_bit_rgb(tmp_path):
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (12, 16), np.uint8), rng.integers(0, 256, (12, 16, 3), np.uint8)
    deep, deep_colour = rng.integers(0, 2**16, (12, 16), np.uint16), rng.integers(0, 2**16, (12, 16, 3), np.uint16)
    transparent = np.dstack([colour, np.full((12, 16), 90, np.uint8)])
    cases = {'a': (grey, grey[..., None].repeat(3, 2)), 'b': (transparent, colour), 'c': (deep, (deep >> 8)[..., None].repeat(3, 2)),
             'd': (deep_colour, deep_colour >> 8)}
    for name, (picture, _) in cases.items():
        save(tmp_path / f'{name}.png', picture)
    for sample, (_, expected) in zip(draws(dataset(tmp_path), 4), cases.values(), strict=True):
        np.testing.assert_array_equal(levels(sample['gt']), expected)


def test_cache_changes_nothing_but_the_reading(photos):
    plain, cached = train(photos), train(photos, cache=True)
    expected = draws(plain, 9)
    first = draws(cached, 9)
    for file in photos.iterdir():
        file.unlink()
    assert all(map(same, first, expected)) and all(map(same, draws(cached, 9), expected))
    with pytest.raises(FileNotFoundError, match='photo_0.png'):
        plain[0]


# ---- what a draw depends on

@pytest.mark.parametrize('degradation', [SR, LIBJPEG, FREEFORM], ids=['sr', 'jpeg', 'freeform'])
def test_a_draw_is_a_function_of_seed_and_number(photos, degradation):
    source = train(photos, degradation)
    sample = source[Draw(0, 5)]
    draws(source, 4, first=17)  # what went before does not matter
    assert same(source[Draw(0, 5)], sample)
    assert same(train(photos, degradation)[Draw(0, 5)], sample)
    assert not same(source[Draw(0, 6)], sample)
    assert not same(train(photos, degradation, manual_seed=4)[Draw(0, 5)], sample)


def test_a_plain_index_is_its_own_number(photos):
    source = train(photos)
    assert same(source[1], source[Draw(1, 1)]) and same(source[1], source[np.int64(1)])


def test_validation_draws_the_same_quality_every_time(photos):
    source = dataset(photos, LIBJPEG)
    assert same(source[0], source[0])
    assert same(source[2], dataset(photos, LIBJPEG)[2])


@pytest.mark.parametrize('backend', ['disk', 'lmdb'])
def test_samples_do_not_depend_on_the_number_of_workers(photos, tmp_path, backend):
    root = photos
    if backend == 'lmdb':
        root = tmp_path / 'photos.lmdb'
        create_lmdb(photos, root)
    batches = {}
    for workers in (2, 0):
        source = train(root, LIBJPEG, io_backend={'type': backend}, batch_size_per_gpu=2)
        order = IterationSampler(source, 1, 0, ratio=2)
        loader = DataLoader(source, batch_size=2, sampler=order, num_workers=workers)
        batches[workers] = []
        for epoch in range(2):
            order.set_epoch(epoch)
            batches[workers] += list(loader)
    assert len(batches[0]) == len(batches[2]) == 6
    assert all(map(same, batches[0], batches[2]))
    assert [batch['lq_path'] for batch in batches[0]] == [batch['lq_path'] for batch in batches[2]]


# ---- crops and augmentation

def corners(source, count: int) -> list[tuple[int, int]]:
    """Return (row, column) of the upper left corners of crops from a picture of coordinates."""
    return [tuple(sample['gt'][:2, 0, 0].mul(255).round().int().tolist()) for sample in draws(source, count)]


def test_crops_lie_anywhere_and_are_not_distorted(tmp_path):
    save(tmp_path / 'a.png', coordinates(20, 19))
    source = train(tmp_path, use_hflip=False, use_rot=False)
    assert set(corners(source, 200)) == {(row, column) for row in range(5) for column in range(4)}
    for sample in draws(source):
        gt = levels(sample['gt'])
        np.testing.assert_array_equal(gt - gt[0, 0], coordinates(16, 16))


def test_crops_keep_to_the_grid_and_reach_its_last_line(tmp_path):
    save(tmp_path / 'a.png', coordinates(40, 55))
    source = train(tmp_path, I2SB_JPEG, crop_multiple=8, use_hflip=False, use_rot=False)
    assert set(corners(source, 200)) == {(row, column) for row in (0, 8, 16, 24) for column in (0, 8, 16, 24, 32)}


def test_detail_crops_find_the_only_detail(tmp_path):
    picture = np.full((64, 64, 3), 128, np.uint8)
    detail = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    picture[32:48, 16:32] = detail
    save(tmp_path / 'a.png', picture)
    one = train(tmp_path, crop_multiple=16, use_hflip=False, use_rot=False)
    many = train(tmp_path, crop_multiple=16, use_hflip=False, use_rot=False, detail_crops=200)
    assert all(np.array_equal(levels(sample['gt']), detail) for sample in draws(many))
    assert any(sample['gt'].std() == 0 for sample in draws(one))


def test_gradient_energy_is_the_mean_squared_difference_of_neighbours():
    stairs = np.zeros((2, 3, 3), np.uint8)
    stairs[1] = 200  # differences of 200 down each column, of 0 along the rows; bytes would wrap
    assert gradient_energy(stairs) == 200**2
    assert gradient_energy(stairs.transpose(1, 0, 2)) == 200**2
    assert gradient_energy(stairs * 0 + 7) == 0


@pytest.mark.parametrize('hflip, rot, count', [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)])
def test_augmentation_makes_every_orientation(tmp_path, hflip, rot, count):
    picture = coordinates(16, 16)
    save(tmp_path / 'a.png', picture)
    seen = {levels(sample['gt']).tobytes() for sample in draws(train(tmp_path, use_hflip=hflip, use_rot=rot), 80)}
    allowed = [variant[::v, ::h] for variant in (picture, picture.transpose(1, 0, 2)) for v in (1, -1) for h in (1, -1)]
    assert len(seen) == count and seen <= {variant.astype(int).tobytes() for variant in allowed}


@pytest.mark.parametrize('degradation', [
    SR, SR | {'kernel': 'pool', 'quantize': False}, I2SB_JPEG, LIBJPEG | {'quality': 10}, CENTER, EDGES], ids=str)
def test_augmented_lq_belongs_to_its_gt(photos, degradation):
    again = build_degradation(degradation)
    for sample in draws(train(photos, degradation)):
        assert torch.equal(again(sample['gt'], np.random.default_rng(0)), sample['lq'])


# ---- images that cannot be used

@pytest.mark.parametrize('content', [b'', b'no image', cv2.imencode('.png', coordinates(40, 48))[1].tobytes()[:100]],
                         ids=['empty', 'text', 'cut'])
@pytest.mark.parametrize('make', [dataset, train])
def test_broken_file_is_named(photos, make, content):
    (photos / 'photo_1.png').write_bytes(content)
    with pytest.raises(ValueError, match='photos/photo_1.png: (is empty|cannot be decoded as an image)'):
        make(photos)[1]


def test_image_smaller_than_the_crop_is_named(photos):
    with pytest.raises(ValueError, match='photos/photo_0.png: 48x40 is smaller than the crop of 44 pixels'):
        train(photos, gt_size=44)[0]


def test_image_smaller_than_the_degradation_needs_is_named(tmp_path):
    save(tmp_path / 'a.png', coordinates(20, 15))
    with pytest.raises(ValueError, match='a.png: 15x20 is smaller than 16 pixels'):
        dataset(tmp_path, I2SB_JPEG)[0]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent: no such image folder'):
        dataset(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match='absent.lmdb: no such image LMDB'):
        dataset(tmp_path / 'absent.lmdb', io_backend={'type': 'lmdb'})


def test_empty_folder_is_named(tmp_path):
    (tmp_path / 'notes.txt').write_text('none')
    with pytest.raises(FileNotFoundError, match=rf'{tmp_path}: holds no image \(.png, .jpg'):
        dataset(tmp_path)


def test_folder_that_is_no_lmdb_is_named(photos):
    with pytest.raises(FileNotFoundError, match=r'photos: not an LMDB of BasicSR \(meta_info.txt is missing\)'):
        dataset(photos, io_backend={'type': 'lmdb'})


def test_listed_but_missing_image_is_named(photos, tmp_path):
    (tmp_path / 'list.txt').write_text('photo_9.png\n')
    with pytest.raises(FileNotFoundError, match='photos/photo_9.png'):
        dataset(photos, meta_info_file=str(tmp_path / 'list.txt'))[0]
    with pytest.raises(FileNotFoundError, match='list2.txt'):
        dataset(photos, meta_info_file=str(tmp_path / 'list2.txt'))


def test_key_that_the_lmdb_lacks_is_named(photos, tmp_path):
    create_lmdb(photos, tmp_path / 'photos.lmdb')
    with open(tmp_path / 'photos.lmdb' / 'meta_info.txt', 'a') as listing:
        listing.write('photo_9.png (40,48,3) 1\n')
    with pytest.raises(ValueError, match="photos.lmdb: has no image 'photo_9', which its meta_info.txt names"):
        dataset(tmp_path / 'photos.lmdb', io_backend={'type': 'lmdb'})[3]


# ---- options

@pytest.mark.parametrize('changes, message', [
    ({'dataroot_lq': 'lq'}, 'give either dataroot_gt (with degradation) or dataroot_lq, not both'),
    ({'dataroot_gt': None, 'degradation': None}, 'give either dataroot_gt (with degradation) or dataroot_lq, not both or neither'),
    ({'degradation': None}, 'degradation belongs to dataroot_gt, and is needed there'),
    ({'dataroot_gt': None, 'dataroot_lq': 'lq'}, 'degradation belongs to dataroot_gt'),
    ({'dataroot_gt': None, 'dataroot_lq': 'lq', 'degradation': None, 'return_gt': True}, 'return_gt: true needs dataroot_gt'),
    ({'dataroot_mask': 'masks'}, 'dataroot_mask belongs to dataroot_lq; with dataroot_gt the degradation draws the masks'),
    ({'degradation': {'type': 'inpaint', 'mask': 'box'}}, "degradation.mask must be one of ('center', 'freeform'), got 'box'"),
    ({'degradation': FREEFORM, 'scale': 4}, 'the degradation reduces by 1, but the option file says scale: 4'),
    ({'degradation': {'type': 'sr', 'scal': 4}}, "datasets.photos.degradation: unknown key 'scal', did you mean 'scale'?"),
    ({'scale': 2}, 'the degradation reduces by 4, but the option file says scale: 2'),
    ({'gt_size': 18}, 'gt_size must be a positive multiple of 4, got 18'),
    ({'gt_size': 24, 'degradation': I2SB_JPEG}, 'gt_size must be a positive multiple of 16, got 24'),
    ({'gt_size': 0}, 'gt_size must be a positive multiple of 4, got 0'),
    ({'gt_size': 16.0}, 'gt_size must be a positive multiple of 4, got 16.0'),
    ({'gt_size': None}, 'gt_size must be a positive multiple of 4, got None'),
    ({'dataroot_gt': None, 'dataroot_lq': 'lq', 'degradation': None, 'scale': 4, 'gt_size': 18}, 'positive multiple of 4, got 18'),
    ({'io_backend': {'type': 'memcached'}}, "io_backend.type must be 'disk' or 'lmdb', got 'memcached'"),
    ({'use_hfilp': True}, "datasets.photos: unknown key 'use_hfilp', did you mean 'use_hflip'?"),
], ids=str)
def test_bad_options_are_named_in_one_line(photos, changes, message):
    with pytest.raises(OptionError) as error:
        train(photos, **changes)
    text = str(error.value)
    assert text.startswith('datasets.photos') and message in text and '\n' not in text


# ---- next to BasicSR's own dataset

def test_basicsrs_paired_dataset_reads_a_pair_of_folders_made_with_our_degradation(photos, tmp_path):
    ours = build_dataset({'name': 'photos', 'type': 'DegradedImageDataset', 'phase': 'val', 'dataroot_gt': str(photos), 'degradation': SR})
    for i in range(len(ours)):
        save(tmp_path / 'lq' / f'photo_{i}.png', levels(ours[i]['lq']).astype(np.uint8))
    theirs = build_dataset({'name': 'pairs', 'type': 'PairedImageDataset', 'phase': 'val', 'dataroot_gt': str(photos), 'scale': 4,
                            'dataroot_lq': str(tmp_path / 'lq'), 'io_backend': {'type': 'disk'}})
    assert len(ours) == len(theirs) == 3
    by_path = {sample['gt_path']: sample for sample in draws(theirs, 3)}  # BasicSR takes the files as the system lists them
    for a in draws(ours, 3):
        b = by_path[a['gt_path']]
        assert set(a) == set(b) == {'lq', 'gt', 'lq_path', 'gt_path'}
        for key in ('lq', 'gt'):
            assert a[key].dtype == b[key].dtype
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-7)
