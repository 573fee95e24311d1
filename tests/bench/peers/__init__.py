"""The same job behind other servers, each as its own documentation would have it."""
