"""A causal language model of the Hub that continues the list of a user's places, ranked on a protocol.

    LANGUAGE_MODEL=Qwen/Qwen3-0.6B hf-mobility benchmark --protocol simulated-city \\
        --model examples/rank_language_model.py:LanguageModel

Nothing is trained: each place of the user is one token, and the model sees a pattern of tokens. What it gives to the
user's own places is kept, the rest is spread over all places.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from transformers import AutoModelForCausalLM

LONGEST = 64  # visits of a prompt
FIRST_TOKEN = 100  # the first tokens of a vocabulary are often special
ELSEWHERE = 0.1  # share of the probability for all places alike


class LanguageModel:
    def __init__(self):
        source = os.environ.get("LANGUAGE_MODEL", "gpt2")
        self.name = f"language model {source.rstrip('/').rsplit('/', 1)[-1]}"
        self.model = AutoModelForCausalLM.from_pretrained(source).eval()

    @torch.inference_mode()
    def probabilities(self, task):
        places = len(task.city.location_ids)
        for user in range(task.users):
            first, end = task.user_starts[user : user + 2]
            for row in np.arange(first, end)[task.target[first:end]]:
                past = task.location[max(first, row - LONGEST) : row]
                own, symbol = np.unique(past[past >= 0], return_inverse=True)
                p = np.full(places, ELSEWHERE / places)
                if len(own):
                    logits = self.model(torch.from_numpy(symbol + FIRST_TOKEN)[None]).logits[0, -1]
                    share = logits[FIRST_TOKEN : FIRST_TOKEN + len(own)].float().softmax(-1).numpy()
                    p[own] += (1 - ELSEWHERE) * share
                yield np.array([row]), (p / p.sum())[None].astype(np.float32)
