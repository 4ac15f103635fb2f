"""`counterpoise report`: runs as one page that a person can look at.

reading -> methods -> answer, curves, comparison, deployment, provenance -> page
findings: what the student answers to the evaluation images, where it is asked
"""
