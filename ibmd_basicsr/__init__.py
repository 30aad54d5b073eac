"""ibmd_basicsr: one-step image restorers distilled from diffusion bridges, as a plugin of BasicSR.

What is named here is imported when it is first used: importing the package costs nothing (docs/python.md).
"""
import importlib
from typing import TYPE_CHECKING, Any

from ibmd_basicsr.version import __version__

if TYPE_CHECKING:
    from ibmd_basicsr.bridges import build_bridge
    from ibmd_basicsr.models.recipes import load_restorer
    from ibmd_basicsr.restorer import Restorer, SamplerOptions
    from ibmd_basicsr.utils.seeding import PerImageNoise

__all__ = ['PerImageNoise', 'Restorer', 'SamplerOptions', '__version__', 'build_bridge', 'load_restorer']

_MODULES = {'PerImageNoise': 'utils.seeding', 'Restorer': 'restorer', 'SamplerOptions': 'restorer', 'build_bridge': 'bridges',
            'load_restorer': 'models.recipes'}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
