"""The wheel: verdict → retrain → gate → canary → promote or roll back."""

from noria.lifecycle.wheel import Wheel

__all__ = ["Wheel"]
