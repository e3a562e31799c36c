"""dynens: dynamic ensemble distillation for recommendation and click-through-rate models."""

__version__ = "0.1.0"
