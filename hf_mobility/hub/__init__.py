"""Auto classes, loading, saving and pushing: everything that speaks with folders and the Hugging Face Hub."""
