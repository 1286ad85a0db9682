"""Optimisers of the inner loop as pure functions, differentiable in parameters, gradients, state and settings."""
