"""The prediction log, reference profiles, and detectors that turn traffic into verdicts."""

from noria.monitoring.records import Verdict, WindowResult, list_verdicts, list_windows, raise_verdict
from noria.monitoring.watch import Watch, watch_day

__all__ = ["Verdict", "Watch", "WindowResult", "list_verdicts", "list_windows", "raise_verdict", "watch_day"]
