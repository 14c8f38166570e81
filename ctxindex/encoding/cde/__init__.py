"""Contextual document embeddings: encoders that read a text in the presence of a sample of its corpus.

    context_encoder   what all of them have in common: a context is given, or stays away
    corpus_context    the sample itself: drawn, read once by the first stage, kept with an index
    encoder           ours (`native`): late chunking in a context whose keys and values are kept
    model             its two stages
    folder, settings  its files
    published         the checkpoints of the authors

Source: "Contextual Document Embeddings", arXiv 2410.02525.
"""
