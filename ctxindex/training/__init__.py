"""Training encoders for context: batches, the InSeNT loss, merging. Importing it is cheap: torch comes later."""
