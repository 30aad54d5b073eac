"""What docs/ says in YAML is accepted by the checks, and changes what the text says it changes."""
import copy
import os
import re
import subprocess

import pytest
import yaml
from tiny import REPOSITORY, parsed

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.metrics  # noqa: F401
from ibmd_basicsr.cli.pipelines import make_parser
from ibmd_basicsr.compat.options import normalise_numbers
from ibmd_basicsr.models.option_rules import check_options

RELEASED = (REPOSITORY / 'docs' / 'released_code.md').read_text()
BLOCKS = [(names.split(), text) for names, text in re.findall(r'<!-- over: ([\w ]+) -->\n```yaml\n(.*?)```', RELEASED, re.DOTALL)]
CASES = [pytest.param(name, text, id=f'{number}-{name}') for number, (names, text) in enumerate(BLOCKS) for name in names]
ONE_STEP = ('sr4x_ibmd', 'sr4x_pool_ibmd', 'jpeg5_ibmd', 'jpeg10_ibmd')


def paper(name: str) -> dict:
    # a copy without the anchors' shared blocks
    return copy.deepcopy(yaml.safe_load(yaml.dump(yaml.safe_load((REPOSITORY / f'options/paper/{name}.yml').read_text()), Dumper=Plain)))


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data) -> bool:
        return True


def merge(below: dict, above: dict) -> dict:
    return below | {key: merge(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
                    for key, value in above.items()}


def changed(old: dict, new: dict, path: str = '') -> dict:
    """Return the values of ``new`` that ``old`` has not, by path."""
    found = {}
    for key, value in new.items():
        if isinstance(value, dict):
            found |= changed(old.get(key, {}), value, f'{path}{key}.')
        elif key not in old or old[key] != value:
            found[f'{path}{key}'] = value
    return found


def test_validation_block_of_the_metrics_page():
    block = yaml.safe_load(re.search(r'```yaml\n(val:.*?)```', (REPOSITORY / 'docs' / 'metrics.md').read_text(), re.DOTALL)[1])
    opt = paper('sr4x_ibmd')
    opt['val']['metrics'] = block['val']['metrics']
    for phase, dataset in opt['datasets'].items():
        dataset |= {'phase': phase, 'scale': opt['scale']}
    check_options(parsed(opt), this_machine=False)


def test_extras_block_of_the_readme():
    block = yaml.safe_load(re.search(r'```yaml\n(network_d:.*?)```', (REPOSITORY / 'README.md').read_text(), re.DOTALL)[1])
    opt = normalise_numbers(merge(paper('sr4x_ibmd'), block))
    del opt['datasets']['train']['return_gt']
    for phase, dataset in opt['datasets'].items():
        dataset |= {'phase': phase, 'scale': opt['scale']}
    check_options(parsed(opt), this_machine=False)


@pytest.mark.parametrize('code, restarts, requeued', [(0, '', False), (4, '', True), (6, '', True), (137, '3', True), (143, '', True),
                                                      (143, '20', False), (2, '', False), (3, '', False)])
def test_batch_script_of_the_scaling_page(tmp_path, code, restarts, requeued):
    """It asks slurm to run the job again when a process was lost or time is up, not when an option is wrong or training has diverged."""
    script = re.search(r'<!-- sbatch -->\n```bash\n(.*?)```', (REPOSITORY / 'docs' / 'scaling.md').read_text(), re.DOTALL)[1]
    (tmp_path / 'job.sh').write_text(script)
    for name, text in (('srun', f'echo "$@" > {tmp_path}/srun.txt; exit {code}'), ('scontrol', f'echo "$@" > {tmp_path}/scontrol.txt')):
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)
    slurm = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '12345', 'SLURM_CPUS_PER_TASK': '12',
             'SLURM_RESTART_COUNT': restarts}
    assert subprocess.run(['bash', '-u', str(tmp_path / 'job.sh')], env=slurm).returncode == code
    assert (tmp_path / 'scontrol.txt').exists() == requeued
    arguments = (tmp_path / 'srun.txt').read_text().split()
    command = arguments[arguments.index('ibmd_basicsr.train') + 1:]
    given = make_parser(is_train=True).parse_args(command)
    assert given.launcher == 'slurm' and given.auto_resume and (REPOSITORY / given.opt).is_file()


def test_every_block_names_its_files():
    assert len(BLOCKS) == RELEASED.count('```yaml') == 7


@pytest.mark.parametrize('name, text', CASES)
def test_blocks_are_accepted(name, text):
    block = yaml.safe_load(text)
    opt = merge(paper(name), block)
    for phase, dataset in opt['datasets'].items():
        dataset |= {'phase': phase, 'scale': opt['scale']}
    check_options(parsed(opt), this_machine=False)


@pytest.mark.parametrize('name, text', CASES)
def test_blocks_change_what_the_text_says(name, text):
    block = yaml.safe_load(text)
    changes = changed(paper(name), merge(paper(name), block))
    if 'pretrain_network_bridge' in text:
        assert set(changes) == {'path.pretrain_network_bridge', 'path.param_key_bridge'}
    elif 'tell_bridge' in text:
        assert changes == {'network_bridge.noise_channels': 1, 'train.student.tell_bridge': True}
    elif 'normalize' in text:
        assert changes == {'train.ibmd_opt.normalize': True, 'train.ibmd_opt.alpha': 0.5}
    else:
        assert changes == ({'train.ibmd_opt.gradient': 'x0_only'} if name in ONE_STEP else {})
