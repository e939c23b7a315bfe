"""How good images are: formulas on feature matrices, whatever space the features live in.

    real, synthetic  float (N, D) and (M, D): features of images, one row each, from the same extractor

Sums are float64. Distances are Euclidean on the features as they are; cosines and what is built of them look at
directions alone. See method.md section 5 for which figure answers which question.
"""
