"""Put the numbers of ``benchmarks/real/results.json`` into ``docs/results.md``.

python -m benchmarks.real.page
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.marked import replace
from benchmarks.real.run import HERE, METHODS, markdown

PAGE = HERE.parents[1] / "docs" / "results.md"
BEGIN = "<!-- results: python -m benchmarks.real.page -->"
PARTS = {
    "warm_start": "warm start",
    "extract": "extraction",
    "plan": "estimates, and the search for groups",
    "groups": "adapters of the groups",
    "boosters": "boosters",
    "multitask": "the multi-task adapter, from theta*",
    "ours": "all of it",
}


def write(result: dict[str, Any], page: Path) -> None:
    """Replace what stands between the page's two marks."""
    sections = (setting, test_results, groups, cost)
    replace(page, BEGIN, "\n\n".join(section(result) for section in sections))


def setting(result: dict[str, Any]) -> str:
    """When, on what and how it ran."""
    settings, rows, versions = result["settings"], result["rows"], result["versions"]
    training, warm, steps = settings["training"], settings["warm_start"], settings["boosting"]["steps"]
    cores = result["machine"]["cores"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    return (
        f"**{result['date']}**, {cores} CPU core{'s' * (cores != 1)}, "
        f"{result['wall_clock_seconds'] / 60:.0f} minutes from start to end; {libraries}.\n"
        f"{result['quantization']} base with {result['dtype']} arithmetic, LoRA rank "
        f"{settings['lora']['rank']} on all linear layers, seed {result['seed']}. At most {rows['train']} training,\n"
        f"{rows['validation']} validation and {rows['test']} test rows a dataset. Warm start: epochs "
        f"{warm['epochs']:g}, over {warm['samples_per_dataset']} rows a dataset. Adapters: at\n"
        f"most {training['epochs']} epochs, learning "
        f"rate {training['learning_rate']:g}, batches of {training['batch_size']}, the best epoch by validation loss. "
        f"Boosters: {steps or 'none'}."
    )


def test_results(result: dict[str, Any]) -> str:
    """Metrics by dataset and method, the paired comparisons and the gate's verdict."""
    lines = [
        "## Test results",
        "",
        "Each dataset's own metric in percent, and half the width of its 95 % bootstrap interval. theta* is the",
        "adapter after the warm start alone; every adapter, the multi-task one included, was trained on from there.",
        "",
        markdown(result),
        "",
        "The ensemble, by paired comparison of the averages:",
        "",
    ]
    for found in result["comparisons"]:
        value, low, high = (100 * found[key] for key in ("difference", "low", "high"))
        lines.append(
            f"- against {METHODS[found['baseline']]}: {value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, "
            f"p = {found['p_value']:.3f}"
        )
    promotion = result["promotion"]
    lines += ["", f"The gate: {promotion['decision']} ({promotion['reason']})."]
    return "\n".join(lines)


def groups(result: dict[str, Any]) -> str:
    """The groups and what the surrogate expected of them."""
    partition, gain = result["partition"], result["partition"]["gain"]
    expected = partition["expected"]
    curve = " · ".join(
        f"{point['m']}: {point['loss']:.3f} ± {point['standard_error']:.3f}" for point in partition["curve"]
    )
    return "\n".join(
        [
            "## Groups",
            "",
            f"From the surrogate's estimates ({partition['method']}):",
            "",
            *(f"- {', '.join(group)}" for group in result["groups"]),
            "",
            "Expected validation loss, as a share of the labels' entropy: these groups "
            f"{expected['chosen']:.3f}, one group {expected['one']:.3f}, a group each "
            f"{expected['each']:.3f}; cross-fitted gain over one group {gain['mean']:.3f} ± "
            f"{gain['standard_error']:.3f}.",
            f"By number of groups (standard error of the difference to the best): {curve}.",
        ]
    )


def cost(result: dict[str, Any]) -> str:
    """FLOPs beside those of one multi-task adapter; seconds and memory by step."""
    flops, taken = result["cost"]["training_flops"], result["cost"]["steps"]
    lines = ["## Cost", "", "| part | FLOPs | relative to the multi-task adapter |", "| --- | ---: | ---: |"]
    lines += [f"| {PARTS[key]} | {flops[key]:.2e} | {flops[key] / flops['multitask']:.2f} |" for key in PARTS]
    lines += ["", "| step | parts | seconds, summed | most memory |", "| --- | ---: | ---: | ---: |"]
    for step in dict.fromkeys(entry["step"] for entry in taken):
        parts = [entry for entry in taken if entry["step"] == step]
        seconds, peak = sum(part["seconds"] for part in parts), max(part["peak_memory_bytes"] for part in parts)
        lines.append(f"| {step} | {len(parts)} | {seconds:.0f} | {peak / 2**30:.1f} GiB |")
    return "\n".join(lines)


if __name__ == "__main__":
    write(json.loads((HERE / "results.json").read_text()), PAGE)
