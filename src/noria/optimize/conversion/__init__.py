"""Conversion of fitted models. Imports nothing of Noria: it also runs in environments that models bring along."""
