"""The tokenizer of the tiny chat model: byte-level BPE of 1280 tokens, for llama.cpp `gpt2` with pre `gpt-2`.

A word has the same tokens with and without a space before it, so that copying a word is copying tokens:
merges are learnt inside words only, and a space is merged afterwards with whole frequent words. Digits
are never merged.
"""

import json
import random
import sys
from collections import Counter

from dialogue import segments
from facts import CITIES, NAMES, WORDS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tool_dialogue import conversation

VOCABULARY = 1280
SPACED = 200  # tokens that are a space and a whole word
SHORT = [
    "a",
    "I",
    "is",
    "of",
    "in",
    "to",
    "at",
    "it",
    "me",
    "my",
    "do",
    "am",
    "an",
    "as",
    "be",
    "up",
    "on",
    "no",
    "so",
    "we",
    "he",
    "or",
    "by",
    "if",
    "go",
    "OK",
    "IS",
    "OF",
    "IN",
    "TO",
    "AT",
    "IT",
    "ME",
    "MY",
    "DO",
    "AM",
    "AN",
]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SHOWN = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
]
PIECES = r" ?[^\s\p{L}\p{N}]+|\p{L}+|\p{N}|\s"


def build(seed: int = 1, conversations: int = 6000) -> Tokenizer:
    rng = random.Random(seed)
    texts = ["".join(text for text, _ in segments(conversation(rng))) for _ in range(conversations)]
    for marker in CONTROL + SHOWN:
        texts = [text.replace(marker, "\n") for text in texts]
    texts += [" ".join(NAMES + CITIES + WORDS)] * 30
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCABULARY - len(CONTROL) - len(SHOWN) - SPACED
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    vocabulary = learner.get_vocab()
    merges = learned_merges(learner)
    pairs: Counter[str] = Counter()
    for text in texts:
        tokens = [learner.id_to_token(i) for i in learner.encode(text).ids]
        # A word is whole where what follows it is not a letter.
        for space, word, following in zip(tokens, tokens[1:], [*tokens[2:], "."], strict=False):
            whole = following == "Ġ" or not following[0].isalpha()
            if (
                space == "Ġ"
                and whole
                and word.isascii()
                and word.isalpha()
                and (len(word) > 2 or word in SHORT)
            ):
                pairs[word] += 1
    for word, _ in pairs.most_common(SPACED):
        merges.append(("Ġ", word))
        vocabulary["Ġ" + word] = len(vocabulary)
    return assemble(vocabulary, merges)


def learned_merges(learner: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROL)
    tokenizer.add_tokens(SHOWN)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    return tokenizer


if __name__ == "__main__":
    build().save(sys.argv[1])
