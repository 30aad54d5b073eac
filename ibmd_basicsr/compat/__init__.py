"""Makes BasicSR importable on current torchvision, and (:func:`install`) lends it what its training loop lacks.

Importing this package does the first alone; ``archs``, ``data``, ``losses``, ``metrics`` and ``models`` import it before BasicSR.
"""
from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ['install']


def _provide_functional_tensor() -> None:
    """Stand in for ``torchvision.transforms.functional_tensor``: BasicSR 1.4.2 needs a function of it, torchvision 0.17 dropped it."""
    name = 'torchvision.transforms.functional_tensor'
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        from torchvision.transforms.functional import rgb_to_grayscale
        module = types.ModuleType(name, 'Stand-in by ibmd_basicsr: BasicSR 1.4.2 takes rgb_to_grayscale from here.')
        module.rgb_to_grayscale = rgb_to_grayscale
        sys.modules[name] = module


_provide_functional_tensor()


def install(prepare: Callable[[dict[str, Any], bool], None], describe: Callable[[dict[str, Any]], str | None] = lambda opt: None) -> None:
    """Replace the functions that BasicSR's pipelines look up by name when they run; it may be called again.

    * ``basicsr.train.parse_options``, ``basicsr.test.parse_options``: numbers and option checks (:mod:`.options`)
    * ``basicsr.utils.options.init_dist``: CPUs, ``dist_params`` for torchrun, long timeout (:mod:`.distributed`)
    * ``basicsr.train.load_resume_state``: any device, any working directory, damaged states (:mod:`.resume`)
    * that and ``basicsr.train.make_exp_dirs``, ``basicsr.test.make_exp_dirs``: one training at a time in a folder (:mod:`.run_folder`)
    * ``basicsr.train.EnlargedSampler``: a data order that depends on ``manual_seed`` and resumes within an epoch
    * ``basicsr.data.worker_init_fn``: processes that outlive the signals on which a run saves and ends (:mod:`.workers`)
    * ``basicsr.train.build_dataset``, ``basicsr.test.build_dataset``: images and LMDBs that cannot be used are named (:mod:`.datasets`)
    * ``basicsr.train.copy_opt_file``: ``-opt`` may be the copy that an earlier run left in its experiment folder

    Args:
        prepare, describe: complete and check the parsed options, and write them down, see :func:`.options.parse_options`.
    """
    from ibmd_basicsr.compat import datasets, distributed, options, resume
    from ibmd_basicsr.compat.iteration_sampler import IterationSampler
    from ibmd_basicsr.compat.run_folder import RUN_FOLDER
    from ibmd_basicsr.compat.workers import WorkerInit

    # `basicsr/__init__` star-imports its modules, so they are taken by their full names, not as attributes of the package
    train, test, data, utils, host_options = map(importlib.import_module, ('basicsr.train', 'basicsr.test', 'basicsr.data',
                                                                           'basicsr.utils', 'basicsr.utils.options'))
    host_options.init_dist = distributed.init_dist
    train.parse_options = test.parse_options = partial(options.parse_options, prepare=prepare, describe=describe)
    train.load_resume_state = RUN_FOLDER.claiming(resume.load_resume_state)
    train.make_exp_dirs = test.make_exp_dirs = RUN_FOLDER.making(utils.make_exp_dirs)
    train.build_dataset = test.build_dataset = datasets.build_dataset
    train.copy_opt_file = options.copy_opt_file
    train.EnlargedSampler = IterationSampler
    if not isinstance(data.worker_init_fn, WorkerInit):
        data.worker_init_fn = WorkerInit(data.worker_init_fn)
