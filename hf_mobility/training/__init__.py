"""Training: `train` (all systems), `adapt` (an adapter for a new city), the Trainer, its data and its settings."""
