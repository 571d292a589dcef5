"""The prediction log, reference profiles, and detectors that turn traffic into verdicts."""

from typing import TYPE_CHECKING

from noria.lazy import lazily

if TYPE_CHECKING:
    from noria.monitoring.records import Verdict, WindowResult, list_verdicts, list_windows, raise_verdict

__all__ = ["Verdict", "WindowResult", "list_verdicts", "list_windows", "raise_verdict"]

__getattr__ = lazily(__name__, dict.fromkeys(__all__, "records"))
