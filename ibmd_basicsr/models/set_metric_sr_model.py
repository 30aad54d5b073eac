"""SetMetricSRModel: BasicSR's SRModel with our validation and our saving."""
from __future__ import annotations

from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY

from ibmd_basicsr.models.saving import SafeSaving
from ibmd_basicsr.models.validation import ShardedValidation


@MODEL_REGISTRY.register()
class SetMetricSRModel(SafeSaving, ShardedValidation, SRModel):
    """BasicSR's ``SRModel``, whose ``val.metrics`` may also name set metrics, whose validation is shared out over the ranks, and whose
    files survive crashes.

    For other restorers of the host's kind: ``class MyModel(ShardedValidation, SwinIRModel)``; with ``SafeSaving`` before it, too, the
    model calls ``finish_iteration`` as this one does.
    """

    def optimize_parameters(self, current_iter: int) -> None:
        """Make the host's step, then stop if a signal has come."""
        super().optimize_parameters(current_iter)
        self.finish_iteration(current_iter)
