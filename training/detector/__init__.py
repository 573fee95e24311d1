"""The embedded person detector: trained, measured and exported here."""
