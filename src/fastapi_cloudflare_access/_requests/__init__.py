"""One request: who calls, what a refusal answers, and what ends with the token of the caller."""
