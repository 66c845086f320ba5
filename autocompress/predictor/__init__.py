"""Accuracy predictors: arrays in, mean and standard deviation out."""
