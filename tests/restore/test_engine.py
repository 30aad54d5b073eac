"""The engine: what networks get and give, tiles and memory, choice of networks."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_zoo import picture

from ibmd_basicsr.cli.restore import make_parser
from ibmd_basicsr.models.recipes import recipes_in
from ibmd_basicsr.restoring import engine as engine_module
from ibmd_basicsr.restoring.engine import Engine
from ibmd_basicsr.restoring.jpeg_quality import JpegQuality
from ibmd_basicsr.restoring.memory import bytes_per_pixel, fitting_side, free_memory
from ibmd_basicsr.restoring.photo import ImageError, Photo
from ibmd_basicsr.restoring.zoo import nearest_quality, recipes_for_task
from ibmd_basicsr.utils.seeding import PerImageNoise

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def recipes(zoo):
    return recipes_in(zoo / 'weights')


def engine(*recipes, **options) -> Engine:
    return Engine(recipes=recipes, device=CPU, **options)


@pytest.fixture(scope='module')
def enlarger(recipes):
    return engine(recipes['sr2x_tiny_student'])


def test_colour_is_what_the_restorer_makes_of_it(enlarger):
    samples = picture(7, 10)
    recipe = enlarger.recipes[0]
    restored = enlarger.restore(Photo(samples), recipe, 'a').colour
    lq = torch.from_numpy(samples / np.float32(255)).permute(2, 0, 1)[None]
    direct = enlarger.restorers[recipe.name](lq, PerImageNoise.for_images(0, ['a']))[0].permute(1, 2, 0).numpy()
    assert (restored == np.rint(direct * 255)).all() and restored.shape == (14, 20, 3)


def test_all_sizes_modes_and_depths(enlarger):
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 2), (3, 150), (150, 1), *(tuple(map(int, rng.integers(1, 40, 2))) for _ in range(8))]
    for number, (height, width) in enumerate(sizes):
        for channels in (1, 3):
            for dtype in (np.uint8, np.uint16):
                colour = picture(height, width, channels, number, dtype).reshape(height, width, channels)
                alpha = picture(height, width, 1, number, dtype) if number % 2 else None
                restored = enlarger.restore(Photo(colour, alpha), enlarger.recipes[0], 'a')
                assert restored.colour.shape == (2 * height, 2 * width, channels) and restored.colour.dtype == dtype
                assert alpha is None or (restored.alpha.shape == (2 * height, 2 * width) and restored.alpha.dtype == dtype)


@pytest.mark.parametrize('scale, tile, halo', [(1, 0, 0), (1, 96, 32), (1, 192, 32), (4, 24, 8), (4, 48, 8), (4, 500, 8)])
def test_the_halo_is_what_the_help_says(scale, tile, halo, recipes):
    """Whatever the side of the tiles: 32 pixels of the result where a network was trained on 256."""
    recipe = replace(recipes['jpeg10_tiny_student'], scale=scale, size=256)
    assert engine(tile=tile)._tiles(Photo(picture(40, 40)), recipe, print) == (tile, halo)
    text = ' '.join(make_parser().format_help().split())
    assert 'an eighth of the size that the network was trained on, 32 pixels of the result (8 of the input for x4)' in text


def test_grey_is_the_luma_of_the_colour_result(enlarger):
    grey = picture(channels=1)[..., None]
    restored = enlarger.restore(Photo(grey), enlarger.recipes[0], 'a').colour
    colour = enlarger.restore(Photo(grey.repeat(3, axis=2)), enlarger.recipes[0], 'a').colour
    assert np.abs(restored[..., 0] - colour @ [0.299, 0.587, 0.114]).max() <= 1  # each of the two is rounded


def test_sixteen_bits_are_not_rounded_to_eight_on_the_way(enlarger):
    samples = picture()
    eight = enlarger.restore(Photo(samples), enlarger.recipes[0], 'a').colour
    sixteen = enlarger.restore(Photo(samples.astype(np.uint16) * 257), enlarger.recipes[0], 'a').colour
    assert np.abs(sixteen / 257 - eight).max() <= 0.51 and len(np.unique(sixteen)) > 256


def test_transparency_is_carried(enlarger, recipes):
    opaque = np.full((12, 16), 255, np.uint8)
    assert (enlarger.restore(Photo(picture(), opaque), enlarger.recipes[0], 'a').alpha == 255).all()
    cleaner = engine(recipes['jpeg10_tiny_student'])
    alpha = picture(channels=1)
    assert (cleaner.restore(Photo(picture(), alpha), cleaner.recipes[0], 'a').alpha == alpha).all()


def test_noise_is_keyed_by_seed_name_and_sample(enlarger, recipes):
    photo, recipe = Photo(picture()), enlarger.recipes[0]

    def make(name: str, sample: int = 0, seed: int = 0) -> bytes:
        return (enlarger if seed == 0 else engine(recipe, seed=seed)).restore(photo, recipe, name, sample).colour.tobytes()
    assert make('a') == make('a', 0)
    assert len({make('a'), make('b'), make('a', 1), make('a', 2), make('a', 0, 1)}) == 5


@pytest.fixture
def calls(monkeypatch):
    """Record tile and halo of the calls of networks."""
    made, original = [], engine_module.restore_tiled

    def recording(*arguments, **options):
        made.append((options['tile'], options['halo']))
        return original(*arguments, **options)
    monkeypatch.setattr(engine_module, 'restore_tiled', recording)
    return made


def test_tiles_have_the_size_of_the_training(calls, enlarger, recipes):
    enlarger.restore(Photo(picture(128, 8)), enlarger.recipes[0], 'a')  # 256 pixels of the result
    enlarger.restore(Photo(picture(129, 8)), enlarger.recipes[0], 'a')
    cleaner = engine(recipes['jpeg10_tiny_student'])
    cleaner.restore(Photo(picture(257, 8)), cleaner.recipes[0], 'a')
    assert calls == [(0, 0), (96, 16), (192, 32)]


def test_tiles_of_the_command_line(calls, recipes):
    recipe, photo = recipes['jpeg10_tiny_student'], Photo(picture(20, 8))
    for options in ({'tile': 8}, {'tile': 8, 'halo': 3}, {'tile': 0, 'halo': 3}, {'tile': 0}):
        engine(recipe, **options).restore(photo, recipe, 'a')
    assert calls == [(8, 32), (8, 3), (0, 0), (0, 0)]


def test_tiles_together_and_precision(recipes):
    """Convolutions sum in another order for a batch: a level at most. bf16 has 8 bits of mantissa: another result, yet near."""
    recipe, photo = recipes['jpeg10_tiny_student'], Photo(picture(40, 24))
    parts = []
    alone, together, coarse = (
        engine(recipe, tile=8, halo=4, **options).restore(photo, recipe, 'a', on_part=parts.append).colour.astype(int)
        for options in ({}, {'batch': 4}, {'precision': 'bf16'}))
    assert np.abs(together - alone).max() <= 1 and parts.count(1) == 3
    assert 1 <= np.abs(coarse - alone).max() <= 16


def test_the_order_of_images_changes_nothing(recipes):
    recipe = recipes['sr2x_tiny_student']
    photos = {name: Photo(picture(30, 12, seed=seed)) for seed, name in enumerate('abc')}
    one, other = engine(recipe, tile=8, halo=4), engine(recipe, tile=8, halo=4)
    forth = {name: one.restore(photos[name], recipe, name).colour for name in 'abc'}
    back = {name: other.restore(photos[name], recipe, name).colour for name in 'cba'}
    assert all((forth[name] == back[name]).all() for name in 'abc')


def test_little_memory_makes_small_tiles_and_says_so(calls, enlarger, monkeypatch):
    recipe = enlarger.recipes[0]
    wanted = bytes_per_pixel(recipe.network) * 128**2
    monkeypatch.setattr(engine_module, 'free_memory', lambda device: int(wanted / 0.6) + 1)
    notes = []
    enlarger.restore(Photo(picture(70, 8)), recipe, 'a', on_note=notes.append)
    assert calls == [(48, 8)]
    assert len(notes) == 1 and notes[0].startswith('tiles of 128 pixels of the result in the place of 256, since ')
    enlarger.restore(Photo(picture(64, 8)), recipe, 'a', on_note=notes.append)
    assert calls[1:] == [(0, 0)] and len(notes) == 1


def test_a_result_that_memory_cannot_hold_is_refused(enlarger, monkeypatch):
    monkeypatch.setattr(engine_module, 'free_memory', lambda device: 10_000)
    with pytest.raises(ImageError, match='the result of 32x24 pixels takes about 0.0 GiB of memory, 0.0 are free on cpu'):
        enlarger.restore(Photo(picture()), enlarger.recipes[0], 'a')


@pytest.mark.parametrize('error', [
    torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError('[enforce fail at ..\\c10\\core\\impl\\alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried ...')])
def test_too_little_memory_is_met_by_smaller_tiles(error, recipes, monkeypatch):
    recipe, photo, notes, parts = recipes['jpeg10_tiny_student'], Photo(picture(40, 24)), [], []
    big = engine(recipe, tile=0)
    restorer = big.restorers[recipe.name]

    def limited(lq, *arguments, **options):
        if lq.shape[-2] > 20:
            raise error
        return restorer(lq, *arguments, **options)
    limited.size_multiple, limited.calls, limited.scale = restorer.size_multiple, restorer.calls, restorer.scale
    big.restorers[recipe.name] = limited
    assert (big.restore(photo, recipe, 'a', on_part=parts.append, on_note=notes.append).colour
            == engine(recipe, tile=10, halo=2).restore(photo, recipe, 'a').colour).all()
    assert notes == ['not enough memory, again in tiles of 20 pixels.', 'not enough memory, again in tiles of 10 pixels.']
    assert parts[0] == 0 and parts[-1] == 1


def test_memory_that_never_suffices_and_other_errors(recipes):
    recipe, photo = recipes['jpeg10_tiny_student'], Photo(picture(40, 24))
    for error, expected in ((MemoryError(), ImageError), (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), RuntimeError)):
        broken = engine(recipe)

        def fail(*arguments, error=error, **options):
            raise error
        fail.size_multiple, fail.calls, fail.scale = 4, 1, 1
        broken.restorers[recipe.name] = fail
        with pytest.raises(expected, match='not even in tiles of 5 pixels' if expected is ImageError else 'shapes'):
            broken.restore(photo, recipe, 'a')


def test_sides_that_fit():
    assert fitting_side(256, 640, None) == 256
    assert fitting_side(256, 640, 10**9) == 256
    assert fitting_side(256, 640, int(256**2 * 640 / 0.6) - 1) == 128
    assert fitting_side(256, 640, 0) == 32


def test_free_memory_of_machine_and_control_group(tmp_path):
    assert free_memory(CPU, tmp_path) is None
    (tmp_path / 'proc').mkdir()
    (tmp_path / 'proc/meminfo').write_text('MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:   800 kB\n')
    assert free_memory(CPU, tmp_path) == 800 * 1024
    group = tmp_path / 'sys/fs/cgroup'
    group.mkdir(parents=True)
    for name, text in (('max', 'max'), ('current', '300000'), ('stat', 'anon 5\ninactive_file 100000\n')):
        (group / f'memory.{name}').write_text(text)
    assert free_memory(CPU, tmp_path) == 800 * 1024
    (group / 'memory.max').write_text('500000\n')
    assert free_memory(CPU, tmp_path) == 300000
    assert free_memory(torch.device('mps'), tmp_path) is None


def test_the_network_of_the_nearest_quality_is_taken(recipes):
    students = recipes_for_task(recipes, 'jpeg')
    assert [recipe.name for recipe in students] == ['jpeg10_tiny_student', 'jpeg40_tiny_student']
    chosen = {quality: nearest_quality(students, quality).quality for quality in (1, 10, 19, 21, 40, 95, None)}
    assert chosen == {1: 10, 10: 10, 19: 10, 21: 40, 40: 40, 95: 40, None: 10}  # 20 is twice and half


def test_a_far_quality_is_worth_a_warning(recipes):
    cleaner = engine(recipes['jpeg10_tiny_student'])
    recipe = cleaner.recipes[0]
    lines = {quality: cleaner.warnings(Photo(picture(), quality=JpegQuality(quality, True)), recipe) for quality in (4, 5, 10, 20, 21, 90)}
    assert [quality for quality, line in lines.items() if line] == [4, 21, 90]
    assert lines[90] == ['JPEG quality 90, but jpeg10_tiny_student was trained on 10; it will remove much detail.']
    assert not cleaner.warnings(Photo(picture()), recipe)
    told = engine(recipe, input_quality=10)
    assert not told.warnings(Photo(picture(), quality=JpegQuality(90, True)), recipe)


def test_without_a_task_only_jpeg_files_are_restored(recipes):
    cleaner = engine(*recipes_for_task(recipes, 'jpeg'), jpeg_alone=True)
    assert cleaner.choose(Photo(picture(), quality=JpegQuality(35, False))).quality == 40
    with pytest.raises(ImageError, match='is not a JPEG file; say what to do with it: --task sr4x'):
        cleaner.choose(Photo(picture()))
