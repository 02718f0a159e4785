"""The benchmark of gradient estimators for the stop action.

Two halves, one for each question. What does an estimator do to the gradient: bias and variance against the enumerated
truth, on frozen problems and along trainings. And what does that do to learning: a sweep of estimators and seeds, every
cell of it an ordinary run, and a report in which failed seeds count as failed.
"""
