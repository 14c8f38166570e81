"""chunks -> vectors: the contextual pass. The only room besides training that imports torch and transformers.

Importing it is cheap: torch comes in with the first forward pass, not before.
"""

from __future__ import annotations

from ctxindex.encoding.checkpoint import Checkpoint, open_checkpoint
from ctxindex.encoding.encoder import Encoder, load_encoder
from ctxindex.encoding.options import EncoderOptions

__all__ = ["Checkpoint", "Encoder", "EncoderOptions", "load_encoder", "open_checkpoint"]
