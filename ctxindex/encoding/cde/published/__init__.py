"""The CDE checkpoints that the authors published, read without any code of theirs.

layout     what the folder says
weights    which tensor of the file is which of the model's
model      both stages, in stock classes of transformers
encoder    texts and contexts -> vectors
"""
