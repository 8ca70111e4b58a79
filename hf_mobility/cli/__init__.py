"""The command line `hf-mobility`; `app.py` holds the commands."""
