"""The signing keys of a team: fetched, cached, refreshed and removed."""
