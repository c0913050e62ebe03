"""Event documents in, alerts out. Pure; knows documents, not decoders."""
