"""BasicSR's own data sets: an image or an LMDB that cannot be used is named, and a bomb is not decoded."""
from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ibmd_basicsr.utils.errors import DataError, OptionError, one_line, printable
from ibmd_basicsr.utils.image_files import check_header, decode_image
from ibmd_basicsr.utils.lmdb_files import check_lmdb


def build_dataset(opt: dict[str, Any]) -> Dataset:
    """Build a data set as the host does; its own are wrapped in :class:`NamedImages`.

    Raises:
        OptionError: pairs that do not match, and what else the host refuses.
        DataError: an LMDB that cannot be opened, or is truncated.
    """
    host = importlib.import_module('basicsr.data')
    if isinstance(opt.get('io_backend'), dict) and opt['io_backend'].get('type') == 'lmdb':
        for key, root in opt.items():
            if key.startswith('dataroot_') and str(root).endswith('.lmdb') and Path(root).is_dir():
                check_lmdb(Path(root))
    try:
        dataset = host.build_dataset(opt)
    except (AssertionError, KeyError, ValueError) as error:
        if hasattr(error, 'exit_code'):
            raise
        reason = error.args[0] if isinstance(error, KeyError) and error.args else one_line(error)  # a KeyError's text has quotes
        raise OptionError(f'datasets.{opt.get("phase", opt.get("name"))}: {printable(reason, 400)}') from error
    return NamedImages(dataset) if type(dataset).__module__.startswith('basicsr.') else dataset


class NamedImages(Dataset):
    """A data set of BasicSR whose errors name the image: it hands out what the data set does, and has the same attributes.

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
            return self.dataset[index]
        except Exception as error:  # None has no astype, an empty buffer, LMDB's: many types
            self._name_image(index, error)
            raise

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
