"""Generated datasets for the demo: three families that help within and hurt across.

Every text says how its writer knows (the *source*), at what *time* of day, and what the writer makes of it (the
*verdict*). In one domain the texts of all three families come from the same distribution; only the unstated question
differs:

=======  ===========================  ========  ==========  =======
family   question                     yes       no          maybe
=======  ===========================  ========  ==========  =======
witness  did the writer see it?       own       hearsay
evening  was it late in the day?      late      early       midday
praise   is the verdict a good one?   pleasant  unpleasant
=======  ===========================  ========  ==========  =======

So one adapter on everything must answer the same sentence in two or three ways, while an adapter for a family need not,
and similarity of texts would group by domain, which is wrong. Gains on this data are planted: the demo shows that the
method finds what is there, not what it is worth on real data.

Run: ``python -m pipelines.demo.generate FOLDER``
"""

import json
import random
import sys
from pathlib import Path

from pipelines.demo.vocabulary import (
    DOMAINS,
    EARLY,
    HEARSAY,
    LATE,
    MIDDAY,
    OWN,
    PERSONS,
    PLEASANT,
    REVERSED,
    STRAIGHT,
    UNPLEASANT,
    Domain,
)

ANSWERS = ("yes", "no", "maybe")
SIZES = {"train": 160, "validation": 140, "test": 120}
REVERSED_SHARE = 0.15  # verdicts said by negating their opposite: what makes bags of words fail
NOISE = 0.06  # labels replaced by another one

# The grades of each trait, in the order of ANSWERS.
SCALES = {"source": (OWN, HEARSAY), "time": (LATE, EARLY, MIDDAY), "verdict": (PLEASANT, UNPLEASANT)}
FAMILIES = {"witness": "source", "evening": "time", "praise": "verdict"}  # the trait the answer is about
NAMES = tuple(f"{family}-{domain}" for family in FAMILIES for domain in DOMAINS)


def generate(folder: Path, seed: int = 0) -> list[str]:
    """Write every dataset as ``folder/<name>/{train,validation,test}.jsonl`` of ``{"text", "label"}``.

    The same seed gives the same bytes, whatever the process or the machine.

    Returns:
        The datasets' names.
    """
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, rows in dataset(name, seed).items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return list(NAMES)


def dataset(name: str, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """The rows of one dataset by split. No text occurs twice; answers are balanced before noise."""
    family, domain_name = name.split("-")
    domain, trait = DOMAINS[domain_name], FAMILIES[family]
    count = len(SCALES[trait])
    rng = random.Random(f"{seed}/{name}")  # noqa: S311 - a str seeds by sha512, so not by PYTHONHASHSEED
    seen: set[str] = set()
    splits = {}
    for split, size in SIZES.items():
        answers = [index % count for index in range(size)]
        rng.shuffle(answers)
        rows = []
        for answer in answers:
            text = _new_sentence(rng, domain, trait, answer, seen)
            if rng.random() < NOISE:
                answer = (answer + rng.randrange(1, count)) % count
            rows.append({"text": text, "label": ANSWERS[answer]})
        splits[split] = rows
    return splits


def _new_sentence(rng: random.Random, domain: Domain, trait: str, grade: int, seen: set[str]) -> str:
    """A sentence not in ``seen`` (and now in it) with that grade of ``trait``; the other traits by chance."""
    while True:
        grades = {name: rng.randrange(len(scale)) for name, scale in SCALES.items()} | {trait: grade}
        text = sentence(rng, domain, **grades)
        if text not in seen:
            seen.add(text)
            return text


def sentence(rng: random.Random, domain: Domain, *, source: int, time: int, verdict: int) -> str:
    """One sentence about ``domain`` with the given grades (indices into ANSWERS and the scales)."""
    thing, other = rng.sample(domain.things, 2)
    filled = rng.choice(domain.frames).format(
        source=rng.choice(SCALES["source"][source]).format(person=rng.choice(PERSONS)),
        time=rng.choice(SCALES["time"][time]),
        verdict=f"{thing} {_predicate(rng, verdict)}",
        aside=f"{other} {_predicate(rng, rng.randrange(2))}",
    )
    return filled[0].upper() + filled[1:]


def _predicate(rng: random.Random, verdict: int) -> str:
    """A verb phrase of that verdict; at times as the denial of its opposite."""
    if rng.random() < REVERSED_SHARE:
        return rng.choice(REVERSED).format(rng.choice(SCALES["verdict"][1 - verdict]))
    return rng.choice(STRAIGHT).format(rng.choice(SCALES["verdict"][verdict]))


def main() -> None:
    """Command line: the folder to write to."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pipelines.demo.generate FOLDER")
    names = generate(Path(sys.argv[1]))
    print(f"wrote {len(names)} datasets to {sys.argv[1]}: {', '.join(names)}")


if __name__ == "__main__":
    main()
