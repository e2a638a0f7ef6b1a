"""The quickstart: small detectors with and without frozen knowledge, trained at equal cost on few images."""
from frozenmm.demo.quickstart.comparison import Places, compare
from frozenmm.demo.quickstart.repeats import REPEATS, uneven_rates, verdict
from frozenmm.demo.quickstart.report import explain, format_table, write_report
from frozenmm.demo.quickstart.rows import ROWS, Budget, Row, RowResult, run_row

__all__ = ['REPEATS', 'ROWS', 'Budget', 'Places', 'Row', 'RowResult', 'compare', 'explain', 'format_table', 'run_row',
           'uneven_rates', 'verdict', 'write_report']
