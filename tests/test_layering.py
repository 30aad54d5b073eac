"""Who may import whom. Low levels stay usable and testable without what lies above them."""
import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'ibmd_basicsr'
LEVELS = {'utils': 0, 'bridges': 1, 'compat': 1, 'archs': 2, 'losses': 2, 'metrics': 2, 'data': 2, 'checkpoints': 1, 'restorer': 3,
          'models': 4, 'restoring': 5, 'reporting': 5, 'exporting': 5, 'importing': 5, 'diagnosis': 6, 'benchmarks': 6, 'cli': 7}
COMMANDS = 8  # every other module at the top
SIDEWAYS = (1, 2)  # levels whose parts do not know each other
EVERYWHERE = {'version'}
FILES = sorted(path for path in PACKAGE.rglob('*.py'))


def part(path: Path) -> str:
    """Return the package part that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path: Path) -> list[str]:
    """Return the dotted names that a file imports, anywhere in it; ``from a import b`` counts as ``a.b``."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: relative import'
            names += [f'{node.module}.{alias.name}' for alias in node.names]
    return names


def test_every_folder_has_a_level():
    folders = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').exists()}
    assert folders <= set(LEVELS) | EVERYWHERE


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_below(path):
    own = part(path)
    if own in EVERYWHERE:
        return
    for name in imports(path):
        if not name.startswith('ibmd_basicsr.'):
            continue
        other = name.split('.')[1]
        if other in EVERYWHERE or other == own:
            continue
        assert LEVELS.get(other, COMMANDS) <= LEVELS.get(own, COMMANDS), f'{own} imports {name} from above'
        sideways = LEVELS.get(other, COMMANDS) == LEVELS.get(own, COMMANDS) in SIDEWAYS
        assert not sideways, f'{own} imports {name} from beside it'
        assert not (own in ('archs', 'losses') and other == 'bridges'), f'{own} knows no bridge, but imports {name}'


@pytest.mark.parametrize('path', [path for path in FILES if part(path) == 'bridges'], ids=lambda path: path.name)
def test_bridges_need_torch_alone(path):
    outside = {name.split('.')[0] for name in imports(path)} - set(sys.stdlib_module_names) - {'torch'}
    assert outside <= {'ibmd_basicsr'}
    assert all(name.startswith(('ibmd_basicsr.bridges', 'torch')) for name in imports(path)
               if name.split('.')[0] not in sys.stdlib_module_names)


@pytest.mark.parametrize('path', [path for path in FILES if part(path) in ('bridges', 'utils', 'checkpoints', 'restorer')],
                         ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_basicsr_below_the_models(path):
    assert not [name for name in imports(path) if name.split('.')[0] == 'basicsr']


def test_distances_need_numpy_alone():
    outside = {name.split('.')[0] for name in imports(PACKAGE / 'metrics' / 'distances.py')} - set(sys.stdlib_module_names)
    assert outside == {'numpy'}
