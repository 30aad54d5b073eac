"""SetMetricSRModel: BasicSR's SRModel with our validation."""
from __future__ import annotations

from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY

from ibmd_basicsr.models.validation import ShardedValidation


@MODEL_REGISTRY.register()
class SetMetricSRModel(ShardedValidation, SRModel):
    """BasicSR's ``SRModel``, whose ``val.metrics`` may also name set metrics, and whose validation is shared out over the ranks.

    For other restorers of the host's kind: ``class MyModel(ShardedValidation, SwinIRModel)``.
    """
