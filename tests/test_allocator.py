"""Freed memory stays with the process, where glibc lets it, and only where nobody has decided otherwise."""
import os
import subprocess
import sys

import pytest
from tiny import REPOSITORY

from ibmd_basicsr.utils.allocator import SET_BY_USER, give_back_freed_memory, keep_freed_memory

GLIBC = sys.platform.startswith('linux') and (os.confstr('CS_GNU_LIBC_VERSION') or '').startswith('glibc')
FAULTS = """
import resource, sys
import torch
from ibmd_basicsr.utils.allocator import keep_freed_memory
kept = keep_freed_memory()
net = torch.nn.Sequential(*[torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)])
x = torch.rand(1, 8, 512, 512)
with torch.no_grad():
    for _ in range(3):
        net(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        net(x)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment):
    """Return whether a fresh process keeps its memory, and its page faults in three passes."""
    clean = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    done = subprocess.run([sys.executable, '-c', FAULTS], env=clean | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'} | environment,
                          capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept == 'True', int(faults)


@pytest.mark.skipif(not GLIBC, reason='glibc alone has mallopt')
def test_a_second_pass_meets_few_page_faults():
    kept, faults = run()
    assert kept and faults < 20_000  # 110,000 otherwise; mostly none, one map a pass where the heap's holes are too small


@pytest.mark.skipif(not GLIBC, reason='glibc alone has malloc_trim')
def test_what_was_kept_is_given_back():
    code = ('import re, torch\n'
            'from ibmd_basicsr.utils.allocator import give_back_freed_memory, keep_freed_memory\n'
            'def resident(): return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024\n'
            'keep_freed_memory()\n'
            'tensors, between = [], []\n'
            'for _ in range(20):\n'
            '    tensors.append(torch.ones(10 * 2**18))\n'
            '    between.append(torch.ones(1000))\n'  # lies behind it on the heap, and stays
            'full = resident()\n'
            'tensors.clear()\n'
            'kept = resident()\n'
            'print(full - kept, give_back_freed_memory(), kept - resident())')
    clean = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    done = subprocess.run([sys.executable, '-c', code], env=clean | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'},
                          capture_output=True, text=True, check=True)
    freed, given, back = done.stdout.split()
    assert int(freed) < 5 and given == 'True' and int(back) > 190


@pytest.mark.parametrize('name', SET_BY_USER)
def test_the_user_decides(monkeypatch, name):
    monkeypatch.setenv(name, '1')
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert keep_freed_memory() is False and give_back_freed_memory() is False
