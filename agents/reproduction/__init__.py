"""The paper's Figures 3, 4 and 5 again: trainings, measurements, pages.

Every figure says which runs it needs and what is to be measured of them; both are kept in the runs directory, so that
a command that was stopped goes on, and a page is made of what lies there.
"""
