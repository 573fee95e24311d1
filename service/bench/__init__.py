"""`subpose bench`: what a running server takes, asked by clients in a process of their own."""
