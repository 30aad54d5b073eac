"""Exports: the graph computes what the restorer computes, files say what they are, what cannot be exported is refused."""
import json
import runpy
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
from tiny import NETWORK, REPOSITORY, make_photos, make_teacher, options, write

from ibmd_basicsr.checkpoints.state_dict import load_params
from ibmd_basicsr.cli import export
from ibmd_basicsr.exporting import onnx_file
from ibmd_basicsr.exporting.student import read_student
from ibmd_basicsr.models.recipes import find_weights, recipe_from_options, recipe_of_weights
from ibmd_basicsr.utils.files import file_digest

EXAMPLE = REPOSITORY / 'docs/examples/onnx_restore.py'


def make_student(root, **changes):
    """Write weights and an option file of a tiny student; return both."""
    network = NETWORK | {'noise_channels': 3} | changes.pop('network', {})
    make_teacher(root, **network)
    weights = (root / 'teacher.pth').rename(root / 'student.pth')
    return weights, write(root, options(root, network_g=network, **{'val__sampler': {'type': 'one_step'}} | changes))


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A folder with student.pth, its options and student.onnx: x4, with attention and noise."""
    root = tmp_path_factory.mktemp('exported')
    weights, opt = make_student(root)
    assert export.main([str(weights), '-opt', str(opt), '-o', str(root / 'student.onnx'), '--licence', 'CC0']) == 0
    return root


@pytest.fixture
def run(capsys):
    """Run the command; return its exit code and the lines on stderr."""
    def run(*arguments):
        code = export.main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err.splitlines()
    return run


@pytest.mark.parametrize('size', [(1, 1, 1), (3, 5, 9), (2, 32, 8)])
def test_graph_equals_the_restorer_at_other_sizes(exported, size):
    student = read_student(recipe_from_options(exported / 'options/tiny.yml', exported / 'student.pth'))
    content = (exported / 'student.onnx').read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, 'SIZES', (size,))
        difference = onnx_file.compare_with_torch(content, student.restorer)[size]
    assert difference < onnx_file.TOLERANCE


def test_noise_matters(exported):
    """The comparison could not tell a graph that dropped z."""
    session = onnxruntime.InferenceSession(exported / 'student.onnx')
    lq = np.full((1, 3, 8, 8), 0.5, np.float32)
    one, two = (session.run(None, {'lq': lq, 'z': np.full((1, 3, 32, 32), value, np.float32)})[0] for value in (0, 1))
    assert np.abs(one - two).max() > 0.01


def test_what_the_graph_says(exported):
    model = onnx.load(exported / 'student.onnx')
    about = {prop.key: prop.value for prop in model.metadata_props}
    assert [entry.version for entry in model.opset_import if entry.domain == ''] == [onnx_file.OPSET] == [int(about['opset'])]
    assert (about['scale'], about['size_multiple'], about['noise_channels']) == ('4', '4', '3')
    assert (about['licence'], about['task'], about['source']) == ('CC0', 'tiny', 'student.pth')
    assert about['source_sha256'] == file_digest(exported / 'student.pth')
    assert json.loads(about['network'])['noise_channels'] == 3 and json.loads(about['bridge'])['type'] == 'I2SB'
    assert [value.name for value in model.graph.input] == ['lq', 'z'] and [value.name for value in model.graph.output] == ['image']
    fixed = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert fixed == [[0, 3, 0, 0]] * 2  # the others are free


def test_conditional_bridge_and_one_step_of_several(tmp_path, capsys):
    """DDBM's preconditioner, x_T as an input, no z: a student of two steps in one."""
    weights, opt = make_student(tmp_path, network={'cond_channels': 3, 'noise_channels': 0}, scale=1,
                                bridge={'type': 'VP', 'conditional': True}, val__sampler={'type': 'few_step', 'steps': 2})
    arguments = [str(weights), '-opt', str(opt), '-o', str(tmp_path / 'a.onnx')]
    assert export.main(arguments) == 2
    assert 'A student of several steps also runs in one: --steps 1.' in capsys.readouterr().err
    assert export.main([*arguments, '--steps', '1']) == 0
    assert [value.name for value in onnx.load(tmp_path / 'a.onnx').graph.input] == ['lq']


def test_a_graph_that_differs_is_not_written(exported, run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, 'export_onnx', lambda student: b'')
    for difference in (2e-4, float('nan'), float('inf')):
        monkeypatch.setattr(onnx_file, 'compare_with_torch', lambda content, restorer, value=difference: {(1, 8, 8): value})
        code, lines = run(exported / 'student.pth', '-opt', exported / 'options/tiny.yml', '-o', tmp_path / 'a.onnx')
        assert code == 5 and len(lines) == 1 and f'differs from torch by {difference:.3g} (at most 0.0001' in lines[0]
    assert not list(tmp_path.iterdir())


def test_example_restores_as_the_restorer(exported, tmp_path, monkeypatch):
    make_photos(tmp_path, count=1, size=(13, 10))
    monkeypatch.setattr(sys, 'argv', ['x', str(exported / 'student.onnx'), str(tmp_path / 'photo_0.png'), str(tmp_path / 'out.png'), '7'])
    runpy.run_path(str(EXAMPLE), run_name='__main__')
    image = cv2.cvtColor(cv2.imread(str(tmp_path / 'out.png')), cv2.COLOR_BGR2RGB)
    lq = cv2.cvtColor(cv2.imread(str(tmp_path / 'photo_0.png')), cv2.COLOR_BGR2RGB)
    z = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 3, 52, 40), np.float32))
    restorer = read_student(recipe_from_options(exported / 'options/tiny.yml', exported / 'student.pth')).restorer
    expected = restorer(torch.from_numpy(lq).permute(2, 0, 1)[None].float() / 255, onnx_file._Given(z))[0].permute(1, 2, 0).numpy() * 255
    assert image.shape == (52, 40, 3) and np.abs(image - expected).max() <= 0.51


def test_example_is_short_and_needs_three_packages():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 25
    assert [line.split()[1] for line in lines if line.startswith(('import', 'from'))] == ['sys', 'numpy', 'onnxruntime', 'PIL']


def test_safetensors_hold_the_weights_bit_for_bit(exported, run, tmp_path):
    assert run(exported / 'student.pth', '-opt', exported / 'options/tiny.yml', '-o', tmp_path / 'a.safetensors')[0] == 0
    with safetensors.safe_open(tmp_path / 'a.safetensors', 'pt') as file:
        params, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    expected = load_params(exported / 'student.pth', 'params_ema')
    assert params.keys() == expected.keys() and all(torch.equal(params[name], expected[name]) for name in params)
    assert about['source_sha256'] == file_digest(exported / 'student.pth') and about['scale'] == '4'


def test_an_existing_file_is_replaced_only_if_told(exported, run, tmp_path):
    file = tmp_path / 'a.safetensors'
    file.write_text('mine')
    given = (exported / 'student.pth', '-opt', exported / 'options/tiny.yml', '-o')
    assert run(*given, file) == (2, [f'error: -o {file}: exists already; --overwrite replaces it.']) and file.read_text() == 'mine'
    assert run(*given, file, '--overwrite') == (0, []) and file.stat().st_size > 1000
    (tmp_path / 'b.onnx').mkdir()
    assert run(*given, tmp_path / 'b.onnx', '--overwrite') == (2, [f'error: -o {tmp_path}/b.onnx: is a folder.'])


def test_shipped_students_are_known_by_name():
    weights = find_weights('sr4x_nano_student', [REPOSITORY / 'weights'])
    about = read_student(recipe_of_weights(weights)).about
    assert about['licence'] == 'Apache-2.0' and about['scale'] == '4' and about['noise_channels'] == '3'
    assert about['title'] == 'Super-resolution x4 (bicubic), student of one step'
    assert about['source_sha256'].startswith('84ccb30bf215')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['nothing', '-o', 'a.onnx'], 'nothing: no such network. Known: edges_nano_student, '),
    (['sr4x_nano_student', '-o', 'a.pt'], '-o a.pt: must end in .safetensors or .onnx.'),
    (['sr4x_nano_student', '-o', 'no/a.onnx'], '-o no/a.onnx: no such folder.'),
    (['sr4x_msrresnet', '-o', 'a.onnx'], 'has no block bridge; options of a BridgeModel or IBMDModel are wanted.'),
    (['sr4x_nano_teacher', '-o', 'a.onnx'], 'ONNX: a student of one step can be exported; val.sampler asks for'),
    (['inpaint_center_nano_student', '-o', 'a.onnx', '--steps', '1'], 'ONNX: students of inpainting are not exported'),
])
def test_refusals(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines = run(*arguments)
    assert code == 2 and len(lines) == 1 and message in lines[0], lines
    assert not list(tmp_path.iterdir())


def test_weights_without_options(exported, run, tmp_path):
    code, lines = run(exported / 'student.pth', '-o', tmp_path / 'a.onnx')
    assert code == 2 and 'student.pth: no cards.yml beside it names its options; give the option file' in lines[0]


def test_missing_packages_are_named(exported, run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'find_spec', lambda name: None)
    code, lines = run(exported / 'student.pth', '-o', tmp_path / 'a.onnx')
    assert code == 2 and lines[0].endswith("needs onnx, onnxruntime: pip install 'ibmd_basicsr[export]'.")
