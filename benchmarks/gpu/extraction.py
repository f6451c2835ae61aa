"""Per-sample extraction on a GPU: tokens a second, as a share of the card's measured matmul peak, and of training.

python -m benchmarks.gpu.extraction [--out FILE]

A randomly initialised Llama with about a billion weights, in bf16 and in nf4, rank 16 on all linear layers. The floor
of extraction is a forward and an activation-backward pass: 4 N T FLOPs, N the weights of the linear layers. Without a
GPU the script says so and measures nothing.
"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.measure import alternate
from benchmarks.setting import adapted
from components.config import ModelConfig
from components.examples import Examples, collate
from components.gradients.per_sample import lora_layers, projected_gradients, watched
from components.gradients.projection import Projection
from components.language_model import answer_logits, load_base, margins
from pipelines.demo import __file__ as demo

DIM, ROWS, LENGTH, BATCH_TOKENS = 400, 256, 256, 16384
PRODUCT = 8192  # rows and columns of the bf16 matrices whose product is taken for the card's peak
SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def main(out: Annotated[Path | None, typer.Option(help="Write the numbers there as JSON, too.")] = None) -> None:
    """Measure, print, and write where asked to."""
    if not torch.cuda.is_available():
        typer.echo("torch sees no GPU: nothing is measured")
        return
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for quantization in ("none", "nf4"):
            found["bf16" if quantization == "none" else quantization] = measure(folder, quantization)
    typer.echo(json.dumps(found, indent=1))
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")


def write_model(folder: Path) -> None:
    """The random model, with the demo's tokenizer: token ids are all that is needed of it."""
    tokenizer = AutoTokenizer.from_pretrained(Path(demo).parent / "base_model")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).to(torch.bfloat16)
    model.save_pretrained(folder)


def measure(folder: str, quantization: str) -> dict[str, float]:
    """Tokens a second of extraction and of an ordinary training step over the same batches, and the card's peak."""
    config = {"id": folder, "quantization": quantization, "dtype": "bfloat16", "device": "cuda", "max_length": LENGTH}
    base = load_base(ModelConfig.model_validate(config))
    model, random = adapted(base), np.random.default_rng(0)
    ids = [random.integers(3, 8000, LENGTH).tolist() for _ in range(ROWS)]
    examples = Examples(np.arange(ROWS), ids, random.integers(0, 2, ROWS), [100, 200])
    projection = Projection(DIM, 0, "count_sketch", base.device)
    size = BATCH_TOKENS // LENGTH
    batches = [collate([(examples, i) for i in range(at, at + size)]).to(base.device) for at in range(0, ROWS, size)]

    def train() -> None:
        for batch in batches:
            torch.nn.functional.softplus(-margins(answer_logits(model, batch), batch.label)).mean().backward()
            model.zero_grad()

    def no_projection() -> None:
        for batch in batches:
            with watched(model, lora_layers(model), size, lambda *_: None):
                margins(answer_logits(model, batch), batch.label).sum().backward()

    def extract() -> None:
        projected_gradients(model, base, examples, projection, BATCH_TOKENS)

    torch.cuda.reset_peak_memory_stats()
    extract()
    memory = torch.cuda.max_memory_allocated()
    left, right = (torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product, *passes = seconds(lambda: left @ right, extract, no_projection, train)
    peak = 2 * PRODUCT**3 / product
    extraction, gradients, training = (ROWS * LENGTH / taken for taken in passes)
    return {
        "peak_tflops": peak / 1e12,
        "linear_weights": base.linear_parameters,
        "extraction_tokens_per_s": extraction,
        "without_projection_tokens_per_s": gradients,
        "training_tokens_per_s": training,
        "share_of_peak_at_4NT": 4 * base.linear_parameters * extraction / peak,
        "extraction_time_over_training": training / extraction,
        "extraction_peak_memory_gib": memory / 2**30,
    }


def seconds(*sides: Callable[[], Any]) -> tuple[float, ...]:
    """Median seconds of each side; they take turns, after one call each to warm up."""

    def ended(side: Callable[[], Any]) -> None:
        side()
        torch.cuda.synchronize()  # nothing is at work when the next one begins

    ends = [partial(ended, side) for side in sides]
    for end in ends:
        end()
    return alternate(*ends)


if __name__ == "__main__":
    typer.run(main)
