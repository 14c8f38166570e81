"""Training encoders for context: the InSeNT loss, and merging of weights. Importing it is cheap: torch comes later."""
