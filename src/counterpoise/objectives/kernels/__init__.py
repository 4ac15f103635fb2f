"""Fast forms of the objectives: loss and gradient in one pass, equal to the reference, chosen where they apply.

A second implementation only: what is computed is said by the files one folder up, and `mixture.reference` here puts
them together for the tests and for every case that no fast form covers.
"""
