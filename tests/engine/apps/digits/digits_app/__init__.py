"""Logistic regression on scikit-learn's digits, with FedAdam."""
