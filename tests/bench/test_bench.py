"""The bench measures what it says: the passes of an iteration, the networks of the option files; its report has all rows."""
import copy
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
import yaml
from tiny import REPOSITORY

from ibmd_basicsr.benchmarks import memory, session, suite
from ibmd_basicsr.benchmarks.passes import bare_pass, network_inputs, pass_cases
from ibmd_basicsr.benchmarks.sizes import (
    IBMD,
    SIZES,
    TEACHER,
    Iterations,
    TrainingChoices,
    make_batch,
    make_model,
    random_network,
    training_options,
)
from ibmd_basicsr.benchmarks.timing import Case, Row, Spread, Target, measure, total
from ibmd_basicsr.cli.bench import LETTERS, main
from ibmd_basicsr.compat.options import normalise_numbers
from ibmd_basicsr.models.option_rules import check_options
from ibmd_basicsr.models.turns import FORWARD, LEARN, THROUGH, Turns

CPU = torch.device('cpu')
NAMES = ('net_g', 'net_bridge', 'teacher')


def count_passes(model, run) -> Counter:
    """Return how often ``run`` makes which pass of which network, told from forward and backward hooks."""
    seen, handles = Counter(), []
    for name in NAMES:
        if not hasattr(model, name):
            continue

        def forward(net, args, kwargs, output, name=name):
            learns, through = next(net.parameters()).requires_grad and output.requires_grad, args[0].requires_grad
            seen[name, LEARN if learns else THROUGH if through and output.requires_grad else FORWARD, tuple(output.shape)] += 1
            if output.requires_grad:
                output.register_hook(lambda gradient, name=name: seen.update({(name, 'backward'): 1}))

        handles.append(getattr(model, name).register_forward_hook(forward, with_kwargs=True))
    run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize('kind, gradient, share, count', [(TEACHER, 'full', False, 1), (IBMD, 'full', False, 2 * 2 + 3),
                                                          (IBMD, 'x0_only', False, 2 * 2 + 3), (IBMD, 'full', True, 2 * 2 + 2)])
def test_bare_passes_are_those_of_the_iterations(tmp_path, kind, gradient, share, count):
    model = make_model(SIZES['quick'], kind, tmp_path, CPU, choices=TrainingChoices(gradient=gradient), share_pass=share)
    cycle = Turns.from_options(model.opt).length
    ours = count_passes(model, Iterations(model, make_batch(SIZES['quick'], kind), cycle))
    bare = count_passes(model, lambda: [case.run() for _, case in pass_cases(model)])
    assert ours == bare
    assert all(case.per == cycle for _, case in pass_cases(model))
    assert sum(number for key, number in ours.items() if key[1] != 'backward') == count


@pytest.mark.parametrize('kind', [FORWARD, LEARN, THROUGH])
def test_a_bare_pass_leaves_no_gradient_behind(kind):
    net = random_network(SIZES['quick'].network)
    inputs = network_inputs(net, 2, 32, CPU)
    bare_pass(net, inputs, kind, None)()
    assert inputs.x.grad is None and all(p.grad is None for p in net.parameters())
    assert all(p.requires_grad is (kind == LEARN) for p in net.parameters()) or kind == FORWARD


@pytest.mark.parametrize('size, kind, file', [('nano', TEACHER, 'sr4x_bridge'), ('nano', IBMD, 'sr4x_ibmd'),
                                              ('s', TEACHER, 'sr4x_s_bridge'), ('s', IBMD, 'sr4x_s_ibmd')])
def test_sizes_are_those_of_the_option_files(tmp_path, size, kind, file):
    wanted = normalise_numbers(yaml.safe_load((REPOSITORY / f'options/{file}.yml').read_text()))
    opt = training_options(SIZES[size], kind, tmp_path, gpu=False)
    for key in ('model_type', 'scale', 'network_g', 'network_bridge'):
        assert opt.get(key) == wanted.get(key), key
    assert opt['bridge'].items() <= wanted['bridge'].items()
    assert opt.get('teacher', {}).get('network') == wanted.get('teacher', {}).get('network')
    train = wanted['train']
    for key in ('ema_decay', 'amp', 'channels_last', 'grad_clip', 'bridge_updates_per_student'):
        assert opt['train'].get(key) == train.get(key), key
    for key in ('bridge_opt', 'ibmd_opt'):
        assert opt['train'].get(key, {}).items() <= train.get(key, {}).items()
    optimizer = {key: value for key, value in train['optim_g'].items() if key != 'lr'}
    assert {key: value for key, value in opt['train']['optim_g'].items() if key != 'lr'} == optimizer
    for key in ('degradation', 'gt_size', 'detail_crops', 'use_hflip', 'use_rot', 'cache', 'batch_size_per_gpu', 'return_gt'):
        assert opt['datasets']['train'].get(key) == wanted['datasets']['train'].get(key), key


@pytest.mark.parametrize('kind', [TEACHER, IBMD])
@pytest.mark.parametrize('size', SIZES)
def test_options_are_accepted(tmp_path, size, kind):
    check_options(copy.deepcopy(training_options(SIZES[size], kind, tmp_path, gpu=False)), this_machine=False)


def test_ratios_are_formed_within_repeats():
    ours, theirs = Row('ours', 's', [1.0, 20.0, 3.0], [1.0, 1.0, 1.0]), Row('theirs', 's', [1.0, 10.0, 1.0], [2.0, 2.0, 2.0])
    ours.against, ours.target = theirs, Target('at most', 2)
    assert ours.ratio() == Spread(2.0, 1.5, 2.5) and ours.met
    assert ours.ratio('processor').median == 0.5
    assert total('both', [ours, theirs]).values == [2.0, 30.0, 4.0]
    assert Row('alone', 'MiB', [5.0], target=Target('at least', 6)).met is False


def test_cases_are_run_in_turns():
    calls, ticks = [], []
    rows = measure([Case('a', lambda: calls.append('a')), Case('b', lambda: calls.append('b'), per=2)], 2, CPU, ticks.append)
    assert ''.join(calls) == ''.join(ticks) == 'ababab'  # the first round warms up
    assert [len(row.values) for row in rows] == [2, 2]


def counted(letter, kind):
    """Return a part whose rows are measured and whose ticks are counted: the bar must know how many there will be."""
    def rows(run):
        ticks = []
        found = kind.rows(replace(run, tick=ticks.append))
        assert len(ticks) == kind.ticks(run), letter
        for name in ticks:
            run.tick(name)
        return found

    return replace(kind, rows=rows)


def test_a_part_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    def fail(run):
        torch.backends.cudnn.benchmark = True  # as a training does
        raise RuntimeError('CUDA out of memory.\nSee the documentation')

    def measure_one(run):
        seen.append(((tmp_path / 'out/results.json').exists(), torch.backends.cudnn.benchmark))
        return [Row('one', 's', [1.0])]

    seen = []
    kinds = [replace(suite.PARTS[letter], rows=rows, ticks=lambda run: 0) for letter, rows in (('a', fail), ('b', measure_one))]
    monkeypatch.setattr(suite, 'PARTS', dict(zip('ab', kinds)))
    monkeypatch.chdir(tmp_path)
    assert main(['--quick', '-o', 'out', '--parts', 'a', 'b', '--device', 'cpu']) == 1
    assert seen == [(True, False)]
    assert '**Failed**: RuntimeError: CUDA out of memory.\n' in (tmp_path / 'out/table.md').read_text()
    parts = json.loads((tmp_path / 'out/results.json').read_text())['parts']
    assert parts['a']['rows'] == [] and parts['b']['failure'] is None and parts['b']['rows'][0]['name'] == 'one'
    assert 'Traceback' in capsys.readouterr().err


def test_quick_run_writes_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # two processes in the place of eleven
    monkeypatch.setattr(session, 'SIZES', {'quick': replace(SIZES['quick'], peers={})})
    monkeypatch.setattr(memory, 'in_a_process', lambda *arguments, device: (2**20, 2**22, 0.5))
    monkeypatch.setattr(suite, 'PARTS', {letter: counted(letter, kind) for letter, kind in suite.PARTS.items()})
    assert main(['--quick', '-o', 'out', '--device', 'cpu']) == 0
    text = (tmp_path / 'out' / 'table.md').read_text()
    content = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert list(content['parts']) == list(LETTERS) == list(suite.PARTS)
    assert {'command', 'date', 'machine', 'torch', 'threads'} <= set(content['about'])
    assert content['about']['command'] == 'python -m ibmd_basicsr.bench --quick -o out --device cpu'
    for letter, part in content['parts'].items():
        assert f'## ({letter}) {part["title"]}' in text
        names = {row['name'] for row in part['rows']}
        assert len(names) >= (1 if letter == 'e' else 2)
        for row in part['rows']:
            assert row['median'] > 0 or row['unit'].startswith('share')
            assert row['against'] in names | {None} and (row['ratio'] is None) is (row['against'] is None)
            assert row['met'] in (None, True, False) and (row['met'] is None) is (row['target'] is None)
    assert any(name.startswith('bare passes') for name in (row['name'] for row in content['parts']['a']['rows']))
    printed = capsys.readouterr()
    assert 'table.md' in printed.out
    assert '100%' in printed.err  # the bar knew how many repeats there would be


def test_memory_is_measured_in_another_process():
    choices = TrainingChoices(gradient='full')
    peak, before, seconds = memory.in_a_process(memory.build_case, 'quick', 'IBMD iteration', choices, device='cpu')
    assert 2**20 < peak < 2**30 and before > 2**20 and 0 < seconds < 60


@pytest.mark.slow  # as long as it takes to import torch
def test_a_failing_process_is_named():
    with pytest.raises(RuntimeError, match='no such row, 32 px'):
        memory.in_a_process(memory.build_case, 'quick', 'no such row, 32 px', TrainingChoices(), device='cpu')


@pytest.mark.parametrize('arguments, message', [(['--repeats', '0'], '--repeats must be at least 1, got 0'),
                                                (['--data', 'nowhere'], '--data nowhere: no such folder'),
                                                (['--device', 'abacus'], "--device: must be cpu, cuda or cuda:N, got 'abacus'"),
                                                (['--quick', '-o', 'file'], '-o file: is a file')])
def test_wrong_command_lines(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('mine')
    monkeypatch.setattr(suite, 'PARTS', {})  # nothing is measured before they are refused
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    out = capsys.readouterr().out
    assert 'python -m ibmd_basicsr.bench --parts a b c' in out and 'exit codes' in out
