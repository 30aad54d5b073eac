"""Tiny networks in a zoo of their own, and random pictures."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from tiny import NETWORK, make_teacher

STUDENT = NETWORK | {'noise_channels': 3}
I2SB = {'type': 'I2SB', 'n_timestep': 1000, 'beta_max': 0.3}
JPEG = {'type': 'jpeg', 'codec': 'libjpeg'}


def add_network(zoo: Path, name: str, **changes) -> None:
    """Write options and weights of a network, and a line about it into cards.yml."""
    opt = {'scale': 1, 'bridge': I2SB, 'network_g': STUDENT, 'val': {'sampler': {'type': 'one_step'}},
           'path': {'pretrain_network_g': f'weights/{name}.pth', 'param_key_g': 'params_ema'}}
    degradation = changes.pop('degradation', None)
    opt |= changes
    if degradation:
        opt['datasets'] = {'test_1': {'degradation': degradation}}
    for folder in ('weights', 'options'):
        (zoo / folder).mkdir(exist_ok=True)
    (zoo / f'options/{name}.yml').write_text(yaml.safe_dump(opt))
    cards = zoo / 'weights/cards.yml'
    known = yaml.safe_load(cards.read_text())['cards'] if cards.exists() else {}
    cards.write_text(yaml.safe_dump({'cards': known | {name: {'title': f'the {name}', 'options': f'options/{name}.yml'}}}, sort_keys=False))
    network = {key: value for key, value in opt['network_g'].items() if key not in NETWORK or value != NETWORK[key]}
    make_teacher(zoo, seed=len(known), **network)
    (zoo / 'teacher.pth').rename(zoo / f'weights/{name}.pth')


def picture(height: int = 12, width: int = 16, channels: int = 3, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    """Return random samples (height, width, channels), without the last axis for one channel."""
    limit = np.iinfo(dtype).max
    samples = np.random.default_rng(seed).integers(0, limit, (height, width, channels), dtype, endpoint=True)
    return samples[..., 0] if channels == 1 else samples
