"""`counterpoise report`: runs as one page that a person can look at.

reading -> methods -> answer, curves, comparison, deployment, provenance -> page
findings: what the student answers to the evaluation images, where it is asked
"""

from counterpoise.pages.report.page import render
from counterpoise.pages.report.writing import report

__all__ = ["render", "report"]
