"""Who may do what: users, API tokens, and roles on the models whose names match a pattern."""

from noria.access.authenticator import Authenticator
from noria.access.entities import Grant, Identity, Permission, Role

__all__ = ["Authenticator", "Grant", "Identity", "Permission", "Role"]
