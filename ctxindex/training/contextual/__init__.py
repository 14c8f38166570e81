"""Contextual batches: how an encoder that reads a corpus context is trained. Importing it is cheap: torch comes later.

    clustering    pairs of a query and a document -> clusters of pairs that are about the same
    packing       clusters -> batches, each as a small domain of its own
    context       what a step's texts are read in: documents of their batch, withheld now and then
    filtering     which documents of a batch may answer a query that they are not the answer of
    contrastive   the loss over what is left
    gradient_cache  its gradient through both stages, in parts

and, joined to the training of a native CDE model (`ctxindex finetune --method cde`):

    options, base   what may be chosen, and the model that a training begins with
    surrogate       what is made once, before the first step, and kept
    pairs           what a step reads
    model           both stages with their graph
    objective       the loss of a step
    trainer         the loop
    workshop        from the base to what is found

A document of a batch is a hard negative of all others, since all are about the same, and the batch is what a corpus is
in use: the model learns to tell documents apart *given* what surrounds them. Source: "Contextual Document Embeddings",
arXiv 2410.02525 (the contextual training procedure), and its authors' code. Each part can be used alone.
"""
