"""Linear regression by gradient descent in NumPy, with FedAvg."""
