"""Reports from run folders: figures, tables and pages; reads the store only, and imports no torch."""

from flowbench.report.pages import ReportPaths, write_report

__all__ = ["ReportPaths", "write_report"]
