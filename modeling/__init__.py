"""Model classes of the three systems. Installed as `hf_mobility.modeling`; never import the top-level name `modeling`.

Every file here imports only transformers, torch, numpy, the standard library and its siblings, so that it also works as
remote code.
"""
