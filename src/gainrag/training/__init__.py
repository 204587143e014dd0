"""Labels -> a selector that ranks passages as the labels do."""

from gainrag.training.distillation import train

__all__ = ["train"]
