"""The trainable side, in torch: imported by training only."""
