"""The revocations of a team: records in a store, a table of them in memory, and the task that keeps it complete.

A log-out refuses the tokens issued at or before its time. A block refuses every token until its end. Records are
merged, never overwritten, so neither their order nor a repetition changes the result:

- of several log-outs the latest one counts;
- of several blocks the one that ends last counts, except those before the last `unblock`;
- nothing that a store returns, or no longer returns, removes a record that a worker has read.
"""
