"""How forward is weighed against reverse KL, one rule a file, and rules for the temperature.

A weight or temperature that follows a schedule needs no rule: the run file takes {shape, start, end} in its place.
"""
