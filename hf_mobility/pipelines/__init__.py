"""The verbs: frames in, frames out."""
