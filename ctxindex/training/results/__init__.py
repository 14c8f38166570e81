"""What comes of a training: how much of it is kept, the folder of the model, its card, and how it is used.

measured        what is found on held-out documents, and what share of the weights that speaks for
merging         weights between two models
export, tuned   a model as a folder that others open
comparison      what it gained over its base, in figures and in words
card, usage     what is said of it, and the commands that use it
"""
