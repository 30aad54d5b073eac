"""A tiny zoo (8 channels, random weights) and the command in this process."""
import pytest
from PIL import Image
from tiny import NETWORK
from tiny_zoo import JPEG, add_network, picture

from ibmd_basicsr.cli.restore import main


@pytest.fixture(scope='session')
def zoo(tmp_path_factory):
    zoo = tmp_path_factory.mktemp('zoo')
    add_network(zoo, 'jpeg10_tiny_student', degradation=JPEG | {'quality': 10})
    add_network(zoo, 'jpeg40_tiny_student', degradation=JPEG | {'quality': 40})
    add_network(zoo, 'jpeg10_tiny_teacher', degradation=JPEG | {'quality': 10}, network_g=NETWORK,
                val={'sampler': {'type': 'ancestral', 'steps': 2}})
    add_network(zoo, 'sr2x_tiny_student', degradation={'type': 'sr', 'scale': 2, 'kernel': 'bicubic'}, scale=2)
    add_network(zoo, 'inpaint_tiny_student', degradation={'type': 'inpaint', 'mask': 'center'})
    add_network(zoo, 'edges_tiny_student', degradation={'type': 'edges'})
    return zoo


@pytest.fixture
def restore(zoo, capsys):
    """Return a function that runs the command on the tiny zoo: exit code, standard output, standard error."""
    def run(*arguments, zoo=zoo):
        capsys.readouterr()
        code = main(['--device', 'cpu', *(['--zoo', str(zoo)] if zoo else []), *map(str, arguments)])  # later ones overrule
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def photo(tmp_path):
    """A good PNG file."""
    path = tmp_path / 'in' / 'good.png'
    path.parent.mkdir()
    Image.fromarray(picture()).save(path)
    return path
