"""Malformed input: one clear line with the name and the reason, an exit code, no code run, no hang, little memory, the others restored.

``make test`` gives some of each family to the commands; all of them: ``make test-slow``, or with a table ``scripts/malformed_inputs.py``.
"""
from collections import Counter

import pytest

from malformed import runner
from malformed.case import Case, make_good
from malformed.corpus import all_cases
from malformed.runner import run_case

CASES = {case.name: case for case in all_cases()}
SOME = [
    'image/whole_bomb.png', 'image/cut_off.jpg', 'image/in a loader process: cut_off.png', 'image/among pairs: whole_bomb.png',
    'lmdb/train: data cut off in the middle', 'lmdb/pairs: list names what is not there', 'lmdb/compare: data of noise',
    'options/train: code: os.system', 'options/compare: billion laughs', 'options/restore: deep lists',
    'options/train: seed that is a list',
    'checkpoint/restore: code: os.mkdir among weights', 'checkpoint/train: NaN', 'checkpoint/compare: a list in place of a weight',
    'checkpoint/export: claiming 4 GiB', 'checkpoint/import_checkpoint: names that are numbers',
    'checkpoint/resume: code: os.system',
]
"""Those of which the commands once made a traceback, a hang, a crash or nothing, and some of the worst."""


@pytest.fixture(scope='session')
def good(tmp_path_factory):
    """The folder that each case gets a copy of."""
    folder = tmp_path_factory.mktemp('malformed') / 'good'
    make_good(folder)
    return folder


@pytest.mark.parametrize('name', [pytest.param(name, marks=() if name in SOME else pytest.mark.slow) for name in CASES])
def test_one_line(name, good, tmp_path):
    outcome = run_case(CASES[name], good, tmp_path / 'case')
    assert not outcome.problems, '\n'.join([*outcome.problems, *outcome.lines])


def test_the_corpus():
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names)) and set(SOME) <= set(names)
    families = Counter(name.partition('/')[0] for name in names)
    assert families.keys() == {'image', 'lmdb', 'options', 'checkpoint'} and min(families.values()) >= 40
    assert {case.module for case in CASES.values()} == {'train', 'test', 'compare', 'restore', 'export', 'import_checkpoint', 'create_lmdb'}


def test_the_runner_sees_what_is_wrong(good, tmp_path, monkeypatch):
    case = Case('x/y', 'misbehaving', lambda folder: [], 'bad.png', 'is purple', 2, ('good.png',))
    monkeypatch.setattr(runner, 'MEBIBYTES', 100)  # torch alone has more
    problems = run_case(case, good, tmp_path / 'case', package='malformed').problems
    memory = problems.pop(1)
    assert memory.endswith(' MiB') and problems == [
        'exit code 1, not 2', 'a traceback', '3 lines on the standard error output', 'no clear line', 'does not name bad.png',
        "does not say 'is purple'", 'code of the file was run', 'changed good.png', 'left executed, half.tmp', 'did not make out/good.png',
        "starts os.system (b'mkdir executed',)"]


def test_the_runner_ends_what_hangs(good, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, 'SECONDS', 1.0)
    outcome = run_case(Case('x/y', 'misbehaving', lambda folder: ['hang'], '', ''), good, tmp_path / 'case', package='malformed')
    assert outcome.code is None and outcome.problems == ['did not end within 1 s']
