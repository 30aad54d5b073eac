"""The JSON schema of option files: it is what the rules say, it accepts all shipped files, and it finds mistakes where they are."""
import json

import jsonschema
import pytest
from tiny import REPOSITORY, load_script

from ibmd_basicsr.compat.options import read_options
from ibmd_basicsr.models.option_schema import option_schema, plain

SCRIPT = load_script('option_schema')
FILES = sorted(path for path in (REPOSITORY / 'options').rglob('*.yml') if not {'compare', 'ablations', 'zoo'} & set(path.parts))
HEADER = '# yaml-language-server: $schema='


@pytest.fixture(scope='module')
def validator():
    schema = option_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_is_what_the_rules_say_now():
    assert SCRIPT.FILE.read_text(encoding='utf-8') == SCRIPT.schema_text(), 'run python scripts/option_schema.py'


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(REPOSITORY / 'options')))
def test_shipped_files_name_the_schema_and_keep_it(validator, path):
    first = path.read_text(encoding='utf-8').splitlines()[0]
    assert first.startswith(HEADER) and (path.parent / first.removeprefix(HEADER)).resolve() == SCRIPT.FILE
    errors = [(list(error.absolute_path), error.message) for error in validator.iter_errors(read_options(path))]
    assert not errors


@pytest.mark.parametrize('place, value', [
    (('scale',), 'four'), (('network_g', 'model_chanels'), 32), (('network_g', 'model_channels'), 'wide'), (('bridge', 'type'), 'I3SB'),
    (('bridge', 'beta_min'), 1.0), (('train', 'ema_decay'), 1.0), (('train', 'optim_g', 'type'), 'Adamw'),
    (('train', 'optim_g', 'lt'), 1e-4), (('train', 'student'), {'steps': 'two'}),
    (('train', 'ibmd_opt', 'gradients'), 'full'), (('val', 'metrics', 'psnr', 'type'), 'psnr'),
    (('val', 'metrics', 'psnr', 'better'), 'more'), (('val', 'sampler', 'type'), 'onestep'), (('path', 'teacher'), 'teacher.pth'),
    (('datasets', 'train', 'degradation', 'scale'), 'four'), (('datasets', 'train', 'degradation', 'kernal'), 'bicubic'),
    (('datasets', 'train', 'type'), 'DegradedDataset'), (('datasets', 'train', 'prefetch_mode'), 'cpu'),
    (('logger', 'print_frequency'), 10), (('teacher', 'weight'), 'teacher.pth'), (('networks_g',), {})], ids=lambda value: str(value)[:40])
def test_mistakes_are_found_where_they_are(validator, place, value):
    opt = json.loads(json.dumps(read_options(REPOSITORY / 'options/sr4x_ibmd.yml')))  # without shared blocks
    *blocks, key = place
    block = opt
    for name in blocks:
        block = block[name]
    block[key] = value
    found = [list(error.absolute_path) for error in validator.iter_errors(opt)]
    assert found and all(path[:len(place)] in (list(place), list(blocks)) for path in found)


def test_every_key_of_ours_has_a_text():
    """Walk the blocks; metrics, optimisers, schedulers and losses of BasicSR and torch are left out, whose texts are theirs."""
    foreign = {'optimizer', 'metric', 'scheduler', 'pixel_opt', 'perceptual_opt', 'gan_opt'}
    silent = []

    def walk(schema, where):
        for key, value in schema.get('properties', {}).items():
            if 'description' not in value and key not in ('type', 'model_type'):
                silent.append('.'.join([*where, key]))
            if key not in foreign:
                walk(value, [*where, key])
        for part in schema.get('allOf', []):
            walk(part['then'], where)
        if 'then' in schema:
            walk(schema['then'], where)
        if isinstance(schema.get('additionalProperties'), dict):
            walk(schema['additionalProperties'], where)

    schema = option_schema()
    for name, block in schema.pop('$defs').items():
        if name not in foreign:
            walk(block, [name])
    walk(schema, [])
    assert not sorted(set(silent))


def test_texts_lose_their_markup():
    assert plain('see :func:`~ibmd_basicsr.data.degradations.build_degradation`, or ``none``') == 'see build_degradation, or none'
