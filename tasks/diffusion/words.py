"""From words to numbers: CLIP's tokenizer, made from the words of captions.

CLIP's own knows 49,408 pieces of words (byte pair encoding, Sennrich et al. 2016). Ours merges the
letters of the captions' words until each word is one piece. A word that it has not seen falls into
pieces that were never trained, and means nothing: `unknown_words` names them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

LENGTH = 32  # tokens of a prompt, start and end included; CLIP's are 77
END_OF_WORD = "</w>"
WORD = re.compile(r"[^\W\d_]+|\d")  # as CLIP parts a text: words, and single digits


def words_of(text: str) -> list[str]:
    """Return the words and digits of a text, in lower case."""
    return WORD.findall(text.lower())


def unknown_words(prompt: str, words: Iterable[str]) -> list[str]:
    """Return the words of a prompt that are not among those learned, each once, in their order."""
    known = set(words)
    return list(dict.fromkeys(word for word in words_of(prompt) if word not in known))


def make_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Return a tokenizer to which each word of the captions is one token."""
    blank = CLIPTokenizer()
    backend = blank.backend_tokenizer
    texts, parted = map(backend.normalizer.normalize_str, set(captions)), backend.pre_tokenizer
    pieces = sorted({piece for text in texts for piece, _ in parted.pre_tokenize_str(text)})
    letters = sorted(set("".join(pieces)))
    learner = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer numbers what it meets in any order, and takes of equals the lower number: to have
    # the same merges each time, letters are numbered here.
    numbered = [blank.bos_token, blank.eos_token, *letters, *(c + END_OF_WORD for c in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=2**20,  # as many as there are: until nothing is left to merge
        min_frequency=0, special_tokens=numbered, end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator([" ".join(pieces)], trainer)
    model = json.loads(learner.to_str())["model"]
    return restore_tokenizer({"vocab": model["vocab"], "merges": model["merges"]})


def tokenizer_state(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Return plain values from which `restore_tokenizer` makes the same tokenizer."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [list(pair) for pair in model["merges"]]}


def restore_tokenizer(state: dict[str, Any]) -> CLIPTokenizer:
    """Return the tokenizer that `tokenizer_state` described."""
    merges = [tuple(pair) for pair in state["merges"]]
    return CLIPTokenizer(vocab=state["vocab"], merges=merges, model_max_length=LENGTH)


def encode_prompts(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Return the tokens of prompts, int64 (N, LENGTH), as diffusers' pipelines encode them."""
    encoded = tokenizer(
        list(prompts), padding="max_length", max_length=LENGTH, truncation=True
    ).input_ids
    return torch.tensor(encoded, dtype=torch.int64)
