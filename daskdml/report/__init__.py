"""What a fit leaves behind: records, the line it prints, its progress on screen, tables and pictures.

Importing this room costs NumPy and nothing more; rich, pandas, matplotlib and jinja2 are imported when first needed.
"""

from daskdml.report.plan import Plan, PlanRow
from daskdml.report.progress import Progress
from daskdml.report.records import FitReport, Record

__all__ = ["FitReport", "Plan", "PlanRow", "Progress", "Record"]
