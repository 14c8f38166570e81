"""A training while it runs: the loop, the folder that it writes in, what it goes on from and when it stops.

trainer               transformers' Trainer around an objective
parameters, lora      what of a model is trained
folder, checkpoints   what lies on the disk, and what of it is whole
stopping              what a run that goes on has to be told anew
watching              who is told how far it is
"""
