"""Fair comparison: methods over seeds and pairs, with equal chances, as tables that come back.

plan.py reads what is compared, running.py and backends/ train it, results.py to plotting.py tell it.
search.py, ranges.py and halving.py choose each method's values first.
"""
