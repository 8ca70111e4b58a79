"""Training: `train` (all systems), `adapt` (SAMoE in a new city), the Trainer, its data and its settings."""
