"""Tokens: found in a request, parsed, verified and cached. Nothing here waits or knows where keys come from."""
