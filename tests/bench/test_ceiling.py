"""Parts i and j of the bench: operations are counted as `--dry-run` does, shares of a profile add up, and few are of unknown kind."""
import copy

import pytest
import torch
import yaml
from tiny import REPOSITORY

from ibmd_basicsr.benchmarks import ceiling
from ibmd_basicsr.benchmarks.session import Session
from ibmd_basicsr.benchmarks.sizes import IBMD, SIZES, TEACHER, TrainingChoices, training_options
from ibmd_basicsr.compat.options import normalise_numbers
from ibmd_basicsr.models.network_cost import measure_network

CPU = torch.device('cpu')
FLOAT32 = TrainingChoices(amp=False, channels_last=False)


def session(folder, repeats, ticks):
    return Session(size_name='quick', device=CPU, folder=folder, repeats=repeats, training=FLOAT32, tick=ticks.append)


@pytest.mark.parametrize('kind, forwards', [(TEACHER, 3), (IBMD, (2 * (1 + 3) + 3 + 1 + 1) / 3)])
def test_operations_of_an_iteration(tmp_path, kind, forwards):
    """K = 2: two bridge updates (a forward of the student, three of the bridge network) and one of the student (3 + 1 + 1)."""
    opt = training_options(SIZES['quick'], kind, tmp_path, gpu=False)
    images = opt['datasets']['train']['batch_size_per_gpu']
    forward = measure_network(copy.deepcopy(SIZES['quick'].network), 32).forward
    # the student's z is three more channels of the first convolution
    assert ceiling.flops_of_iteration(opt) == pytest.approx(images * forwards * forward, rel=0.05)


def test_a_product_is_what_it_says():
    product = ceiling.matrix_product(8, 3, CPU, torch.float32)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        product()
    assert counter.get_total_flops() == 3 * 2 * 8**3


def test_rates_are_operations_by_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(ceiling, 'PRODUCT', {'cpu': (64, 2)})
    ticks = []
    rows = ceiling.ceiling_rows(session(tmp_path, 2, ticks))
    assert [row.unit for row in rows] == ['TFLOP/s', 'TFLOP/s', 'images/s'] * 2 and len(ticks) == 4 * 3
    for rate, product, images in (rows[:3], rows[3:]):
        assert rate.against is product and rate.target is None and 'float32' in product.name
        seconds = [2 / value for value in images.values]
        assert rate.values == pytest.approx([rate.notes['gflops'] / 1000 / value for value in seconds])


def test_a_profile_is_whole_and_mostly_of_known_kind(tmp_path):
    ticks = []
    rows = ceiling.profile_rows(session(tmp_path, 1, ticks))
    assert len(ticks) == 2 * 3
    for name in ('teacher', 'IBMD'):
        shares = {row.name.partition(': ')[2]: row.values[0] for row in rows if row.name.startswith(name)}
        assert list(shares) == [*ceiling.CATEGORIES, ceiling.OTHER, ceiling.NOTHING]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6) and min(shares.values()) >= 0
        assert shares['convolutions'] > 0.05 and shares[ceiling.OTHER] < 0.2  # allocations and views count in networks this small


@pytest.mark.parametrize('operation, heading', [
    ('aten::convolution_backward', 'convolutions'), ('aten::mkldnn_convolution', 'convolutions'),
    ('aten::addmm', 'matrix products, attention'),
    ('aten::_scaled_dot_product_flash_attention_for_cpu', 'matrix products, attention'), ('aten::native_group_norm', 'normalisation'),
    ('aten::_fused_adamw_', 'optimiser, EMA, clipping'), ('aten::_foreach_lerp_', 'optimiser, EMA, clipping'),
    ('aten::linalg_vector_norm', 'optimiser, EMA, clipping'),
    ('aten::copy_', 'copies, casts, filling'), ('aten::normal_', 'random numbers'), ('aten::silu_backward', 'pointwise operations'),
    ('aten::upsample_nearest2d', 'pooling, resampling'),
    ('triton_poi_fused_convolution_silu_3', 'compiled kernels'), ('aten::as_strided', ceiling.OTHER)])
def test_kinds_of_operations(operation, heading):
    assert ceiling.category(operation) == heading


def test_the_largest_size_is_that_of_the_paper():
    paper = {name: normalise_numbers(yaml.safe_load((REPOSITORY / f'options/paper/sr4x_{name}.yml').read_text()))
             for name in ('bridge', 'ibmd')}
    opt = training_options(SIZES['adm256'], IBMD, REPOSITORY, gpu=False)
    for key in ('network_g', 'network_bridge', 'scale'):
        assert opt[key] == paper['ibmd'][key], key
    assert opt['teacher']['network'] == paper['ibmd']['teacher']['network']
    assert opt['train']['bridge_updates_per_student'] == paper['ibmd']['train']['bridge_updates_per_student']
    assert training_options(SIZES['adm256'], TEACHER, REPOSITORY, gpu=False)['network_g'] == paper['bridge']['network_g']
