"""What all checks of values have in common: which values are numbers, and how a message ends that names an unknown word."""
import math

import pytest

from ibmd_basicsr.utils.errors import exit_code, first_line, hint
from ibmd_basicsr.utils.numbers import is_integer, is_number


@pytest.mark.parametrize('value, integer, number', [
    (3, True, True), (-3, True, True), (0, True, True), (10**400, True, True), (3.0, False, True), (0.5, False, True),
    (True, False, False), (False, False, False), (math.nan, False, False), (math.inf, False, False), (None, False, False),
    ('3', False, False), ([3], False, False), (3j, False, False)], ids=lambda value: repr(value)[:9])
def test_what_is_a_number(value, integer, number):
    assert is_integer(value) is integer and is_number(value) is number


def test_bounds_of_integers_are_included():
    assert [value for value in range(-1, 5) if is_integer(value, least=1, most=3)] == [1, 2, 3]
    assert is_integer(-9, most=3) and is_integer(9, least=1) and not is_integer(True, least=0)


@pytest.mark.parametrize('name, end', [
    ('weight_dcay', ", did you mean 'weight_decay'?"), ('x', '.'), (3, ", did you mean '3'?"), (None, '.')])
def test_hint(name, end):
    assert hint(name, ['weight_decay', 'lr', 3]) == end
    assert hint(name, ()) == '.'


@pytest.mark.parametrize('error, line', [
    (ValueError('\n first\nsecond'), 'first'), (ValueError(), 'ValueError'), (ValueError('a\x1b[31m'), 'a\\x1b[31m'),
    (FileNotFoundError(2, 'No such file', 'x.png'), 'x.png: No such file')])
def test_first_line(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize('kind', [FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError])
def test_names_of_files_are_the_users_to_mend(kind):
    assert exit_code(kind(1, 'reason', 'x.png')) == 2 and exit_code(OSError(5, 'Input/output error', 'x.png')) is None
