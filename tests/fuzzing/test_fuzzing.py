"""A few random files each time, the same ones: scripts/fuzz.py does this for minutes, with others."""
import functools

import guard
import numpy as np
import pytest
from guard import Fault, check_message, fault_of, limits
from hypothesis import HealthCheck, given, settings
from image_cases import check_equal, check_image, check_photo, check_round_trip, image_cases, pictures
from option_cases import FILES, OptionCase, check_options, option_cases, shipped
from tiny import REPOSITORY

from ibmd_basicsr.restoring.photo import Photo

few = functools.partial(settings, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@few(max_examples=40)
@given(option_cases())
def test_option_files_are_accepted_or_refused_in_lines(case):
    check_options(case)


@few(max_examples=200)
@given(image_cases())
def test_damaged_images_are_read_or_refused_in_a_line(case):
    check_image(case)


@few(max_examples=100)
@given(pictures())
def test_images_are_read_as_they_were_written(picture):
    check_round_trip(picture)


def test_shipped_files_are_accepted_or_lack_what_is_not_here():
    kinds = {'train', 'test', 'compare'}
    for path in FILES[::9]:
        kind, text, _ = shipped(path)
        kinds.discard(kind)
        outcome = check_options(OptionCase(kind, text, str(path.relative_to(REPOSITORY))))
        assert outcome == 'accepted' or 'no such' in outcome, (path, outcome)
    assert not kinds


def test_the_guard_sees_what_it_is_for(monkeypatch):
    """Else the tests above could not fail."""
    with pytest.raises(MemoryError), limits():
        np.ones(2**30)
    monkeypatch.setattr(guard, 'SECONDS', 0.05)
    with pytest.raises(guard.TooLong), limits():
        while True:
            pass
    assert fault_of(KeyError('x')).kind == 'KeyError at elsewhere'
    with pytest.raises(Fault, match='a message that is no line'):
        check_message('two\n\nlines')
    black, white = (Photo(np.full((3, 4, 3), value, np.uint8)) for value in (0, 255))
    with pytest.raises(Fault, match='other pixels'):
        check_equal(black, white)
    with pytest.raises(Fault, match='a wrong alpha'):
        check_photo(Photo(black.colour, alpha=np.zeros((4, 3), np.uint8)))


def test_a_fault_is_found(monkeypatch):
    monkeypatch.setattr('option_cases.read_rows', lambda opt: opt['scale'] / 0)
    file = next(path for path in FILES if path.name == 'sr4x.yml' and 'compare' in path.parts)
    with pytest.raises(Fault, match='ZeroDivisionError'):
        check_options(OptionCase('compare', shipped(file)[1], str(file.relative_to(REPOSITORY))))
