"""Reproduction of the paper's Figures 3 to 7: each study measures a table of cases and writes a page about it.

A study says what is measured of which runs (`study.py`); `experiment.py` and `scales.py` say how much is computed. Runs
and measurements are kept on disk, so that a command that was stopped continues. The tables of a page are functions of
the study's table, which lies beside the page as a CSV file.
"""
