"""The audit of an app's routes: which callers each admits, by its dependencies and by requests without a token."""
