"""The HTTP product."""
