"""Files and other packages' tables -> frames, and back."""
