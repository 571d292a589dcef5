"""Fronts: parse, call, render. No SQL, no decisions."""
