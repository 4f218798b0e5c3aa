"""Tiny random models in folders, made on the spot: the tests download nothing.

The libraries are imported where a model is made. pytest loads this file in the process, too, that only hands out tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCES = [
    "Instruct: Find the code that does this\nQuery: where is the parser of the file",
    "def read_lines(path): return open(path).read().split()",
    "the cat sat on the mat and the dog sat on the log",
    "how to sort a list of numbers in 2024, 10 or 100 times",
    "find the passage that answers the question of the reader",
    "red apple, green pear, yellow banana, blue plum",
]


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A decoder of 3 layers and 32 dimensions, with a byte-level BPE that adds no token."""
    return _save_llama(tmp_path_factory.mktemp("llama"), _byte_level_bpe(special_tokens_around=False))


@pytest.fixture(scope="session")
def tiny_writer(tmp_path_factory) -> Path:
    """The same decoder with its head, which writes what comes."""
    return _save_llama(tmp_path_factory.mktemp("writer"), _byte_level_bpe(special_tokens_around=False), head=True)


@pytest.fixture(scope="session")
def tiny_llama_bos_eos(tmp_path_factory) -> Path:
    """The same decoder with a tokenizer that adds <s> before and </s> after every text."""
    return _save_llama(tmp_path_factory.mktemp("llama-bos-eos"), _byte_level_bpe(special_tokens_around=True))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """An encoder of 2 layers and 32 dimensions, with an uncased WordPiece."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    # A trainer breaks ties another way in every process; this vocabulary is always the same.
    words = sorted({word.lower() for sentence in SENTENCES for word in re.findall(r"\w+|[^\w\s]", sentence)})
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
    ).save_pretrained(folder)
    torch.manual_seed(1)
    BertModel(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)
    return folder


def _byte_level_bpe(*, special_tokens_around: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if special_tokens_around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return tokenizer


def _save_llama(folder: Path, tokenizer: Tokenizer, *, head: bool = False) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=128
    ).save_pretrained(folder)
    torch.manual_seed(0)
    (LlamaForCausalLM if head else LlamaModel)(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.2,
            attention_dropout=0.1,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder)
    return folder
