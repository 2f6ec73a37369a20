"""A page on a result that one can mail: one file, no request to anywhere. Torch-free."""

from mr_core.report.page import diagnose_report, reprogram_report, train_source_report

__all__ = ["diagnose_report", "reprogram_report", "train_source_report"]
