"""The quickstart: small detectors with and without frozen knowledge, trained for the same time on few images."""
from frozenmm.demo.quickstart.report import explain, format_table, write_report
from frozenmm.demo.quickstart.rows import ROWS, Budget, Row, RowResult, run_row

__all__ = ['ROWS', 'Budget', 'Row', 'RowResult', 'explain', 'format_table', 'run_row', 'write_report']
