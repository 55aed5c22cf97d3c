"""The routes of an app: a walk through them, mistakes in their declarations, and the paths that they serve."""
