"""Fixtures of the tests of comparisons."""
import pytest
import yaml

from ibmd_basicsr.cli.compare import main


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Be in an empty folder; return run(options, *arguments) -> (code, stdout, stderr) of the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'options').mkdir()

    def run(options, *arguments):
        (tmp_path / 'options/tiny.yml').write_text(yaml.safe_dump(options))
        code = main(['-opt', 'options/tiny.yml', '--device', 'cpu', *arguments])
        return code, *capsys.readouterr()

    return run
