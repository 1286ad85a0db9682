"""What lives inside Ray: supervisor, rollouts, learners, evaluator, adapters, sweeps."""
