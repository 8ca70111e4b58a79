"""Training rooms: what a batch is (`corpus`), the Trainer (`trainer`), its settings (`presets`) and adaptation to a
new city (`adapt`)."""
