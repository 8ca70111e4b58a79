"""Tokenizers of the three systems: a city each. Installed as `hf_mobility.tokenization`; never import the top-level
name.

Every file here imports only transformers, numpy, safetensors, the standard library and its siblings, so that it also
works as remote code.
"""
