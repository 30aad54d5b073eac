"""One table says what each metric is called, how it is written and which direction is better."""
import pytest
from basicsr.utils.registry import METRIC_REGISTRY

from ibmd_basicsr.metrics.catalogue import FACTS, facts_of, find_metric, metric_types, short_name
from ibmd_basicsr.metrics.diversity import Diversity
from ibmd_basicsr.metrics.psnrb_metric import calculate_psnrb
from ibmd_basicsr.metrics.set_metrics import SET_METRIC_REGISTRY, FrechetDistance
from ibmd_basicsr.utils.errors import OptionError


def test_facts_are_of_registered_metrics_and_ours_all_have_some():
    assert set(FACTS) <= {short_name(kind) for kind in metric_types()}
    ours = [name for name, function in METRIC_REGISTRY if function.__module__.startswith('ibmd_basicsr.')]
    assert len(ours) == 5
    assert {*(short_name(name) for name in ours), *SET_METRIC_REGISTRY.keys(), 'Diversity'} <= set(FACTS)
    assert {facts.better for facts in FACTS.values()} == {'higher', 'lower'}


@pytest.mark.parametrize(('kind', 'target', 'of_sets', 'of_draws', 'column'), [
    ('calculate_psnrb', calculate_psnrb, False, False, ('higher', 'PSNR-B dB', 2)),
    ('calculate_classifier_accuracy', None, False, False, ('higher', 'classifier_accuracy', 4)),
    ('FrechetDistance', FrechetDistance, True, False, ('lower', 'FrechetDistance', 4)),
    ('Diversity', Diversity, False, True, ('higher', 'Diversity', 4)),
])
def test_metrics_of_all_kinds_are_found(kind, target, of_sets, of_draws, column):
    found = find_metric(kind)
    assert target in (found.target, None)
    assert (found.of_sets, found.of_draws) == (of_sets, of_draws)
    assert (found.better, found.title, found.digits) == column


@pytest.mark.parametrize('kind', ['calculate_psn', 'psnr', None, {}, ['calculate_psnr']])
def test_others_are_refused(kind):
    with pytest.raises(OptionError, match='no metric .* is registered.* Registered: Diversity, FrechetDistance, '):
        find_metric(kind)


def test_directions():
    psnr = find_metric('calculate_psnr')
    assert psnr.direction_problem('p', None) is None and psnr.direction_problem('p', 'higher') is None
    assert psnr.direction_problem('p', 'lower') == "p.better: higher is better for calculate_psnr, got 'lower'; leave it out."
    assert psnr.direction_problem('p', 'more') == "p.better: must be one of 'higher', 'lower', got 'more'."
    assert facts_of('calculate_ssim_pt').better == 'higher' and facts_of('calculate_mine') == facts_of(None) == (None, None, 4)
