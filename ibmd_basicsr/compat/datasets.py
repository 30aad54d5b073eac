"""BasicSR's own data sets: their crops can be repeated, an image or an LMDB that cannot be used is named, a bomb is not decoded."""
from __future__ import annotations

import functools
import importlib
import pkgutil
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ibmd_basicsr.utils.errors import DataError, OptionError, one_line, printable
from ibmd_basicsr.utils.image_files import check_header, decode_image
from ibmd_basicsr.utils.lmdb_files import check_lmdb
from ibmd_basicsr.utils.seeding import derive_seed


def build_dataset(opt: dict[str, Any]) -> Dataset:
    """Build a data set as the host does; its own are wrapped in :class:`NamedImages`.

    Raises:
        OptionError, DataError: as :func:`make_dataset`.
    """
    dataset = make_dataset(opt, importlib.import_module('basicsr.data').build_dataset)
    return NamedImages(dataset) if type(dataset).__module__.startswith('basicsr.') else dataset


def make_dataset(opt: dict[str, Any], make: Callable[[dict[str, Any]], Dataset]) -> Dataset:
    """Return ``make(opt)``, a data set whose LMDBs have been looked at.

    Args:
        opt: block of the data set.
        make: a class of data sets, or what chooses one.

    Raises:
        OptionError: pairs that do not match, and what else the host refuses.
        DataError: an LMDB that cannot be opened, or is truncated.
    """
    if isinstance(opt.get('io_backend'), dict) and opt['io_backend'].get('type') == 'lmdb':
        for key, root in opt.items():
            if key.startswith('dataroot_') and str(root).endswith('.lmdb') and Path(root).is_dir():
                check_lmdb(Path(root))
    try:
        return make(opt)
    except (AssertionError, KeyError, ValueError) as error:
        if hasattr(error, 'exit_code'):
            raise
        reason = error.args[0] if isinstance(error, KeyError) and error.args else one_line(error)  # a KeyError's text has quotes
        raise OptionError(f'datasets.{opt.get("phase", opt.get("name"))}: {printable(reason, 400)}') from error


class NamedImages(Dataset):
    """A data set of BasicSR whose errors name the image and whose crops and flips can be repeated; it has the same attributes.

    The host's data sets draw from the global generators of the process that loads, which no training state holds. Here each draw of
    :class:`~ibmd_basicsr.compat.iteration_sampler.IterationSampler` has a seed of its own, whatever process makes it.

    Args:
        dataset: with ``paths`` and ``file_client``, or without: then errors stay as they are.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        _guard_decoder()

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            with self._own_seed(index):
                return self.dataset[index]
        except Exception as error:  # None has no astype, an empty buffer, LMDB's: many types
            self._name_image(index, error)
            raise

    @contextmanager
    def _own_seed(self, index: int) -> Iterator[None]:
        """Let the block draw from global generators that are seeded by the number of the draw; images of a validation have none."""
        if not hasattr(index, 'number'):
            yield
            return
        before = random.getstate(), np.random.get_state()
        seed = derive_seed('data', self.dataset.opt.get('manual_seed') or 0, index.number)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])

    def _name_image(self, index: int, error: Exception) -> None:
        """Raise a DataError for the image of this index that cannot be read or decoded, if there is one."""
        paths, client = getattr(self.dataset, 'paths', None), getattr(self.dataset, 'file_client', None)
        if paths is None or client is None:
            return
        files = paths[index] if isinstance(paths[index], dict) else {'lq_path': paths[index]}
        for kind, path in files.items():
            kind = kind.removesuffix('_path')
            root = getattr(self.dataset, f'{kind}_folder', '')
            name = f'{root}/{path}' if str(root).endswith('.lmdb') else str(path)
            try:
                content = client.get(path, kind)
            except FileNotFoundError:
                raise
            except Exception as reason:  # of the file system or LMDB
                raise DataError(f'{printable(name, 400)}: cannot be read ({printable(reason, 160)}).') from error
            if content is None:
                raise DataError(f'{printable(name, 400)}: is not in the LMDB, whose meta_info.txt names it.') from error
            decode_image(content, printable(name, 400))


def _guard_decoder() -> None:
    """Let the host's data sets look at an image's header before they decode it."""
    package = importlib.import_module('basicsr.data')
    for found in pkgutil.iter_modules(package.__path__, f'{package.__name__}.'):
        module = importlib.import_module(found.name) if found.name.endswith('_dataset') else None
        decode = getattr(module, 'imfrombytes', None)
        if decode is not None and not hasattr(decode, '__wrapped__'):
            module.imfrombytes = _guarded(decode)


def _guarded(decode: Any) -> Any:
    @functools.wraps(decode)
    def imfrombytes(content: bytes, *args: Any, **kwargs: Any) -> np.ndarray:
        check_header(content or b'', 'an image')
        return decode(content, *args, **kwargs)
    return imfrombytes
