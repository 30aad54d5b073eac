"""IterationSampler: which images are drawn in which order, on how many ranks, and after a resume."""
import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from ibmd_basicsr.compat.iteration_sampler import Draw, IterationSampler


class Numbers(torch.utils.data.Dataset):
    """A dataset whose samples are (index, draw number), so that a batch tells which draws made it."""

    def __init__(self, length: int, **opt):
        self.length, self.opt = length, opt

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return int(index), index.number


def sampler(length: int, ranks: int = 1, rank: int = 0, ratio: int = 1, **opt) -> IterationSampler:
    return IterationSampler(Numbers(length, **opt), ranks, rank, ratio)


def epoch(source: IterationSampler, number: int = 0) -> list[tuple[int, int]]:
    """Return the draws of an epoch as (index, number)."""
    source.set_epoch(number)
    return [(int(draw), draw.number) for draw in source]


def indices(source: IterationSampler, number: int = 0) -> list[int]:
    return [index for index, _ in epoch(source, number)]


def batches(source: IterationSampler, batch: int, epochs: range) -> list[list[tuple[int, int]]]:
    """Return the batches that BasicSR's loader makes of some epochs: it drops the last incomplete one of each."""
    dataset = Numbers(source.length)
    loader = DataLoader(dataset, batch_size=batch, sampler=source, drop_last=True)
    result = []
    for number in epochs:
        source.set_epoch(number)
        result += [list(zip(index.tolist(), place.tolist())) for index, place in loader]
    return result


@pytest.mark.parametrize('length, ratio', [(7, 1), (5, 3), (1, 4)])
def test_an_epoch_is_one_permutation_of_the_enlarged_set(length, ratio):
    drawn = indices(sampler(length, ratio=ratio))
    assert sorted(drawn) == sorted(list(range(length)) * ratio)
    assert len(sampler(length, ratio=ratio)) == length * ratio


@pytest.mark.parametrize('length, ratio, draws', [(7, 1.5, 11), (5, 3.0, 15), (4, 0.5, 2)])
def test_a_ratio_may_be_a_fraction(length, ratio, draws):
    """As in the host, which rounds up."""
    drawn = indices(sampler(length, ratio=ratio))
    assert len(drawn) == draws and set(drawn) <= set(range(length))


def test_order_is_random_and_depends_on_seed_and_epoch():
    first = indices(sampler(50, manual_seed=1))
    assert first != sorted(first)
    assert first == indices(sampler(50, manual_seed=1))
    assert first != indices(sampler(50, manual_seed=2))
    assert first != indices(sampler(50, manual_seed=1), 1)
    assert indices(sampler(50, manual_seed=1), 1) != indices(sampler(50, manual_seed=2), 0)


def test_no_seed_means_seed_0():
    assert indices(sampler(50)) == indices(sampler(50, manual_seed=None)) == indices(sampler(50, manual_seed=0))
    assert indices(sampler(50, manual_seed=0)) != indices(sampler(50, manual_seed=1))


def test_torchs_generator_is_left_alone():
    before = torch.get_rng_state()
    indices(sampler(50))
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_count_draws_over_epochs():
    source = sampler(5, ratio=2)
    numbers = [number for i in range(3) for _, number in epoch(source, i)]
    assert numbers == list(range(30))


@pytest.mark.parametrize('ranks', [2, 3, 4])
def test_ranks_deal_out_what_one_rank_draws(ranks):
    alone = epoch(sampler(12, manual_seed=3, ratio=2), 4)
    for rank in range(ranks):
        assert epoch(sampler(12, ranks, rank, manual_seed=3, ratio=2), 4) == alone[rank::ranks]


@pytest.mark.parametrize(('ranks', 'batch'), [(3, 1), (1, 6), (3, 2), (2, 3), (1, 3), (2, 8)])
def test_uneven_sets_fill_up_the_last_batch_and_leave_nothing_out(ranks, batch):
    shares = [epoch(sampler(7, ranks, rank, batch_size_per_gpu=batch)) for rank in range(ranks)]
    per_rank = -(-7 // (ranks * batch)) * batch
    assert [len(share) for share in shares] == [per_rank] * ranks
    assert {index for share in shares for index, _ in share} == set(range(7))
    assert sorted(number for share in shares for _, number in share) == list(range(per_rank * ranks))
    alone = epoch(sampler(7, batch_size_per_gpu=ranks * batch))
    assert shares == [alone[rank::ranks] for rank in range(ranks)]


# 10 images in batches of 2: whole epochs of 5 iterations; 11 and 7: the last batch of each is filled up
@pytest.mark.parametrize('length', [10, 11, 7])
@pytest.mark.parametrize('done', [1, 2, 4, 7])
def test_resumed_run_goes_on_with_the_draws_of_the_unbroken_one(length, done):
    per_epoch = (length + 1) // 2
    unbroken = batches(sampler(length, manual_seed=5, batch_size_per_gpu=2), 2, range(4))
    assert len(unbroken) == 4 * per_epoch
    resumed = sampler(length, manual_seed=5, batch_size_per_gpu=2, start_iter=done)
    assert batches(resumed, 2, range(done // per_epoch, 4)) == unbroken[done:]


@pytest.mark.parametrize('rank', [0, 1])
def test_resume_on_two_ranks(rank):
    unbroken = batches(sampler(12, 2, rank, batch_size_per_gpu=2), 2, range(3))
    resumed = batches(sampler(12, 2, rank, batch_size_per_gpu=2, start_iter=4), 2, range(1, 3))
    assert resumed == unbroken[4:] and len(resumed) == 5


def test_state_of_the_end_of_an_epoch_finds_that_epoch_empty():
    """The host names the epoch in which it saved: here 0, of which nothing is left."""
    source = sampler(10, batch_size_per_gpu=2, start_iter=5)
    assert epoch(source, 0) == []
    assert epoch(source, 1) == epoch(sampler(10, batch_size_per_gpu=2), 1)


def test_generators_are_restored_whenever_the_resumed_epoch_starts_and_never_later():
    """The host asks for the first epoch twice (with workers already at its prefetcher's construction), each time after a draw."""
    calls = []
    source = sampler(3)
    IterationSampler.on_resume = (1, lambda: calls.append(source.epoch))
    draws = iter(source)
    assert calls == []
    next(draws)
    assert calls == [0]
    epoch(source, 1)
    epoch(source, 2)
    assert calls == [0, 1]
    sampler(3)
    assert IterationSampler.on_resume is None


def test_draw_is_an_index():
    draw = Draw(2, 17)
    assert draw == 2 and 'abc'[draw] == 'c' and draw.number == 17


@pytest.mark.parametrize('through', [lambda draw: pickle.loads(pickle.dumps(draw)), copy.copy, copy.deepcopy],
                         ids=['pickle', 'copy', 'deepcopy'])
def test_draw_keeps_its_number(through):
    """Loaders send draws to their workers pickled."""
    draw = through(Draw(2, 17))
    assert type(draw) is Draw and (draw, draw.number) == (2, 17)


def test_without_a_batch_size_an_iteration_is_one_draw():
    assert epoch(sampler(5, start_iter=3)) == epoch(sampler(5))[3:]
