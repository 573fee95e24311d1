"""The papers' comparison at low resolution: each system trained alone, on equal terms."""
