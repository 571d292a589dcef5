"""What a reader must be able to learn about a version without asking its author."""

from noria.governance.card import write_card

__all__ = ["write_card"]
