"""Writes a GPT-NeoX, which is what Polyglot-Ko is, with random weights and another model's tokenizer and chat template.

    python -m scripts.random_gpt_neox TOKENIZER_FOLDER FOLDER

What a server costs does not depend on what the weights say. The shape is Pythia's of 160 M parameters: 12 layers of 768
(EleutherAI/pythia-160m, config.json).
"""

from __future__ import annotations

import argparse
from pathlib import Path


def write(tokenizer_folder: Path, folder: Path) -> int:
    """Writes the model and the tokenizer; the number of parameters."""
    import torch
    from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(19)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(f"{write(args.tokenizer, args.folder):,} parameters -> {args.folder}")


if __name__ == "__main__":
    main()
